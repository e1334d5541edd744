"""The registry: a folder of models, one folder a version; versions never change, aliases move.

It hands bytes in and out and never loads a model: the API reads it too, and has no scikit-learn.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from shared.aliases import Target, point_at
from shared.disk import replace_file, sync_folder, write_file
from shared.manifest import Description, Manifest
from shared.references import NAME, BrokenManifest, UnknownModel, list_some, quote, split_reference

#: The alias that a bare name means; the first version of a name gets it.
CHAMPION = "champion"

MANIFEST_FILE = "manifest.json"
ALIASES_FILE = "aliases.json"
REMOVED_FILE = "removed.json"

_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_REMOVED = re.compile(r"\.removed-[1-9][0-9]{0,8}")

#: Of a file: when it was written, which it is, its size; None: it is not there.
_Stamp = tuple[int, int, int] | None

T = TypeVar("T")


class VersionExists(ValueError):
    """A version that is there already cannot be written again: versions never change."""


class Registry:
    """Reads and writes the folder of models.

    Reading keeps manifests and aliases in memory; to see whether a file was replaced, or damaged, costs one `stat`.
    Safe to share between threads.

    Parameters
    ----------
    root : Path
        Need not exist yet: then there are no models.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._manifests: dict[tuple[str, int], tuple[_Stamp, Manifest]] = {}
        self._aliases: dict[str, tuple[_Stamp, dict[str, Target]]] = {}

    # Reading

    def names(self) -> list[str]:
        """List the names that have at least one version, sorted."""
        return sorted(name for name in _list_folders(self.root, NAME) if self.versions(name))

    def versions(self, name: str) -> list[int]:
        """List the versions of a name, ascending; none if there is no such name."""
        if not NAME.fullmatch(name):
            return []
        return sorted(int(version) for version in _list_folders(self.root / name, _VERSION))

    def version_folder(self, name: str, version: int) -> Path:
        """Where a version's files are, or would be.

        Raises
        ------
        UnknownModel
            The name is not a model name.
        """
        return self._model_folder(name) / str(version)

    def read_files(self, name: str, version: int) -> dict[str, bytes]:
        """Read all files of a version, the manifest too, by their name.

        Raises
        ------
        OSError
            One cannot be read.
        """
        folder = self.version_folder(name, version)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}

    def manifest(self, name: str, version: int) -> Manifest:
        """Read a version's manifest.

        Raises
        ------
        UnknownModel
            There is no such name or version.
        BrokenManifest
            The manifest is missing, cannot be read, or is of another version.
        """
        self._check_name(name)
        stamp = _stamp(f"{self.root}/{name}/{version}/{MANIFEST_FILE}")
        known = self._manifests.get((name, version))
        if known is None or known[0] != stamp:
            self._manifests.pop((name, version), None)
            known = (stamp, self._read_manifest(name, version))
            self._manifests[name, version] = known
        return known[1]

    def aliases(self, name: str) -> dict[str, Target]:
        """Read the aliases of a name and what each means.

        Raises
        ------
        BrokenManifest
            The aliases cannot be read.
        """
        self._check_name(name)
        path = f"{self.root}/{name}/{ALIASES_FILE}"
        stamp = _stamp(path)
        if stamp is None:
            return {}
        known = self._aliases.get(name)
        if known is None or known[0] != stamp:
            read = _decode_file(Path(path), f"{name}/{ALIASES_FILE}", dict[str, int | Target])
            targets = {alias: point_at(target) if isinstance(target, int) else target for alias, target in read.items()}
            known = (stamp, targets)
            self._aliases[name] = known
        return dict(known[1])

    def aliased_versions(self, name: str) -> set[int]:
        """Return the versions that an alias points to, shadows among them."""
        return {version for target in self.aliases(name).values() for version in target.all_versions}

    def find_shadow(self, name: str, version: int) -> int | None:
        """Return the version that scores unseen beside one; None if no alias says so."""
        for target in self.aliases(name).values():
            if target.shadow is not None and version in target.versions:
                return target.shadow
        return None

    def resolve(self, reference: str) -> Manifest:
        """Find the version that ``name``, ``name@alias`` or ``name:version`` means now.

        An alias to several versions means each of them by its weight, anew at each call.

        Raises
        ------
        UnknownModel
            The reference is of no such form, or what it names is not there.
        BrokenManifest
            It is there and cannot be used.
        """
        name, separator, rest = split_reference(reference)
        if not NAME.fullmatch(name):
            raise UnknownModel(reference, self.names())
        if separator == ":":
            if not _VERSION.fullmatch(rest):
                raise UnknownModel(reference, self.names(), f"{quote(rest)} is not a version: use {name}:1")
            return self.manifest(name, int(rest))
        return self._resolve_alias(reference, name, rest if separator else CHAMPION)

    def all_versions(self) -> list[Manifest]:
        """List every usable version, by name and version; the broken ones are in `faults`."""
        return [found for found in self._read_all() if isinstance(found, Manifest)]

    def faults(self) -> list[BrokenManifest]:
        """List what is wrong with the versions that cannot be used."""
        return [found for found in self._read_all() if isinstance(found, BrokenManifest)]

    # Writing

    def write_version(
        self,
        name: str,
        content: bytes,
        description: Description,
        *,
        graph: bytes | None = None,
        version: int | None = None,
        check: Callable[[Manifest], None] | None = None,
        sign: Callable[[Mapping[str, bytes]], Mapping[str, bytes]] | None = None,
    ) -> Manifest:
        """Add a version: all of it is on disk when this returns, or nothing is there.

        Parameters
        ----------
        name : str
        content : bytes
            Of the model file.
        description : Description
        graph : bytes or None
            Of the file that `description.backend` describes, if it has one.
        version : int or None
            None takes the next free one.
        check : callable or None
            Called with the manifest before anything is written; what it raises stops the writing.
        sign : callable or None
            Called with all files by their name before they are written; what it returns is written beside them.

        Raises
        ------
        ValueError
            The name or the version is not a valid one.
        VersionExists
            The version is there already.
        """
        if not NAME.fullmatch(name):
            raise ValueError(f"{quote(name)} is not a model name: expected {NAME.pattern}")
        if version is not None and not _VERSION.fullmatch(str(version)):
            raise ValueError(f"{version!r} is not a version: expected a whole number from 1")
        with self._locked(name):
            manifest = Manifest(
                name=name,
                version=version or max(self._list_taken(name), default=0) + 1,
                created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
                sha256=hashlib.sha256(content).hexdigest(),
                size=len(content),
                **msgspec.structs.asdict(description),
            )
            if check is not None:
                check(manifest)
            files = {manifest.file: content, MANIFEST_FILE: _encode_manifest(manifest)}
            if manifest.backend.graph is not None and graph is not None:
                files[manifest.backend.graph.file] = graph
            self._publish_version(manifest, files if sign is None else {**files, **sign(files)})
        return manifest

    def check_target(self, name: str, alias: str, target: Target) -> None:
        """See that an alias may point to a target.

        Raises
        ------
        UnknownModel
            There is no such version.
        BrokenManifest
            A version cannot be used.
        ValueError
            The alias is not a valid one, or the versions do not read the same columns.
        """
        if not NAME.fullmatch(alias):
            raise ValueError(f"{quote(alias)} is not an alias: expected {NAME.pattern}")
        first, *others = [self.manifest(name, version) for version in target.all_versions]
        for other in others:
            if _list_columns(other) != _list_columns(first):
                # One submission may meet either of them.
                raise ValueError(f"{first.reference} and {other.reference} do not read the same columns")

    def set_alias(self, name: str, alias: str, target: int | Target) -> None:
        """Point an alias at a version, or at several by weight, at once for all readers.

        Raises
        ------
        UnknownModel, BrokenManifest, ValueError
            As `check_target`.
        """
        target = point_at(target) if isinstance(target, int) else target
        self.check_target(name, alias, target)
        with self._locked(name):
            self._write_aliases(name, self.aliases(name) | {alias: target})

    def remove_version(self, name: str, version: int) -> None:
        """Remove a version for ever: its number is not given again.

        Raises
        ------
        UnknownModel
            There is no such version.
        ValueError
            An alias points to it, and it is not the last version of its name.
        """
        with self._locked(name):
            versions = self.versions(name)
            if version not in versions:
                self._read_manifest(name, version)  # raises, with the versions that there are
            named = [alias for alias, target in self.aliases(name).items() if version in target.all_versions]
            if named and len(versions) > 1:
                raise ValueError(f"{name}@{named[0]} points to {name}:{version}: promote another version first")
            if named:
                self._write_aliases(name, {})
            folder = self.version_folder(name, version)
            # Its number stays taken: a job of it must never mean another model.
            removed = folder.with_name(f".removed-{version}")
            folder.rename(removed)
            replace_file(removed.with_name(REMOVED_FILE), _encode(sorted({*self._list_removed(name), version})))
            shutil.rmtree(removed)
            self._manifests.pop((name, version), None)

    # Inside

    def _model_folder(self, name: str) -> Path:
        self._check_name(name)
        return self.root / name

    def _check_name(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise UnknownModel(name, self.names())

    def _list_taken(self, name: str) -> list[int]:
        """List the numbers of the versions that are there, or were."""
        return self.versions(name) + self._list_removed(name)

    def _list_removed(self, name: str) -> list[int]:
        path = self.root / name / REMOVED_FILE
        noted = _decode_file(path, f"{name}/{REMOVED_FILE}", list[int]) if path.exists() else []
        # A removal that was cut off has not been noted yet.
        return noted + [int(folder.rpartition("-")[2]) for folder in _list_folders(self.root / name, _REMOVED)]

    def _write_aliases(self, name: str, aliases: dict[str, Target]) -> None:
        described = {alias: target.describe() for alias, target in sorted(aliases.items())}
        replace_file(self._model_folder(name) / ALIASES_FILE, _encode(described))
        self._aliases.pop(name, None)

    def _read_manifest(self, name: str, version: int) -> Manifest:
        versions = self.versions(name)
        if not versions:
            raise UnknownModel(f"{name}:{version}", self.names())
        if version not in versions:
            known = [str(number) for number in versions]
            raise UnknownModel(
                f"{name}:{version}",
                known,
                f"model {name!r} has no version {version}; it has {list_some(known)}",
            )
        label = f"{name}/{version}/{MANIFEST_FILE}"
        manifest = _decode_file(self.root / name / str(version) / MANIFEST_FILE, label, Manifest)
        if manifest.name != name:
            raise BrokenManifest(label, "$.name", f"expected {name!r}, the folder's name")
        if manifest.version != version:
            raise BrokenManifest(label, "$.version", f"expected {version}, the folder's version")
        return manifest

    def _resolve_alias(self, reference: str, name: str, alias: str) -> Manifest:
        aliases = self.aliases(name)
        target = aliases.get(alias)
        if target is not None:
            version = target.choose(random.random())
            try:
                return self.manifest(name, version)
            except UnknownModel as error:
                reason = f"version {version} is not there"
                raise BrokenManifest(f"{name}/{ALIASES_FILE}", f"$.{alias}", reason) from error
        if not self.versions(name):
            raise UnknownModel(reference, self.names())
        known = sorted(aliases)
        there = f"it has {list_some(known)}" if known else f"it has none; use {name}:{self.versions(name)[-1]}"
        raise UnknownModel(reference, known, f"model {name!r} has no alias {quote(alias)}; {there}")

    def _read_all(self) -> Iterator[Manifest | BrokenManifest]:
        for name in self.names():
            for version in self.versions(name):
                # A version removed while we look is simply not there.
                with contextlib.suppress(UnknownModel):
                    try:
                        yield self.manifest(name, version)
                    except BrokenManifest as error:
                        yield error

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Keep other writers of this name out; readers never wait."""
        folder = self._model_folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self.root)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _publish_version(self, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        target = self.version_folder(manifest.name, manifest.version)
        if manifest.version in self._list_taken(manifest.name):
            raise VersionExists(f"{manifest.reference} exists already, or did; versions never change")
        # A leading dot is never a version, so a half-written folder is invisible.
        incoming = target.parent / f".incoming-{secrets.token_hex(8)}"
        incoming.mkdir()
        try:
            for file, content in files.items():
                write_file(incoming / file, content)
            sync_folder(incoming)
            incoming.rename(target)
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        sync_folder(target.parent)


def _list_folders(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if pattern.fullmatch(entry.name) and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _stamp(path: str) -> _Stamp:
    """Return what changes when a file does: it is replaced, which makes another inode, or written in place."""
    try:
        status = os.stat(path)  # a `Path` of it would be made for every job
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _list_columns(manifest: Manifest) -> list[tuple[str, str]]:
    return [(column.name, column.type) for column in manifest.signature.columns]


def _encode(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _encode_manifest(manifest: Manifest) -> bytes:
    document = msgspec.to_builtins(manifest)
    # People read it too: first which version this is.
    return _encode({name: document[name] for name in Manifest.__annotations__} | document)


def _decode_file(path: Path, label: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise BrokenManifest(label, None, f"cannot be read ({error.strerror})") from error
    except msgspec.ValidationError as error:
        reason, _, field = str(error).partition(" - at ")
        raise BrokenManifest(label, field.strip("`") or "$", reason) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenManifest(label, None, f"is not JSON ({error})") from error
