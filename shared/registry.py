"""The registry: a folder of models, one folder a version; versions never change, aliases move.

It hands bytes in and out and never loads a model: the API reads it too, and has no scikit-learn.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from shared.disk import replace_file, sync_folder, write_file
from shared.errors import ServiceError
from shared.manifest import Description, Manifest

#: The alias that a bare name means; the first version of a name gets it.
CHAMPION = "champion"

MANIFEST_FILE = "manifest.json"
ALIASES_FILE = "aliases.json"

# No separator and no leading dot: a name can never leave the registry's folder.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")

T = TypeVar("T")


class UnknownModel(ServiceError):
    """A reference names no model, version or alias of the registry.

    Parameters
    ----------
    reference : str
        As the caller wrote it.
    known : sequence of str
        The names (or versions, or aliases) that exist.
    detail : str or None
        What was expected instead; by default made from `known`.
    """

    def __init__(self, reference: str, known: Sequence[str], detail: str | None = None) -> None:
        super().__init__("unknown_model", detail or _describe_unknown(reference, known))
        self.reference = reference
        self.known = list(known)


class BrokenManifest(ServiceError):
    """A file of the registry cannot be used; it says which one and which field.

    Parameters
    ----------
    file : str
        Relative to the registry's folder.
    field : str or None
        Path of the field inside the file, ``$.sha256`` for example.
    reason : str
    """

    def __init__(self, file: str, field: str | None, reason: str) -> None:
        where = f"{file}, field {field}" if field else file
        super().__init__("model_not_ready", f"{where}: {reason}")
        self.file = file
        self.field = field
        self.reason = reason


class VersionExists(ValueError):
    """A version that is there already cannot be written again: versions never change."""


class Registry:
    """Reads and writes the folder of models.

    Reading keeps manifests in memory, because versions never change; an alias costs one `stat`. Safe to
    share between threads.

    Parameters
    ----------
    root : Path
        Need not exist yet: then there are no models.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._manifests: dict[tuple[str, int], Manifest] = {}
        self._aliases: dict[str, tuple[tuple[int, int, int], dict[str, int]]] = {}

    # Reading

    def names(self) -> list[str]:
        """List the names that have at least one version, sorted."""
        return sorted(name for name in _list_folders(self.root, _NAME) if self.versions(name))

    def versions(self, name: str) -> list[int]:
        """List the versions of a name, ascending; none if there is no such name."""
        if not _NAME.fullmatch(name):
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
        manifest = self._manifests.get((name, version))
        if manifest is None:
            manifest = self._read_manifest(name, version)
            self._manifests[name, version] = manifest
        return manifest

    def aliases(self, name: str) -> dict[str, int]:
        """Read the aliases of a name and the version that each means.

        Raises
        ------
        BrokenManifest
            The aliases cannot be read.
        """
        path = self._model_folder(name) / ALIASES_FILE
        try:
            status = path.stat()
        except FileNotFoundError:
            return {}
        # Aliases are replaced, never written in place: each change is another inode.
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        known = self._aliases.get(name)
        if known is None or known[0] != stamp:
            known = (stamp, _decode_file(path, f"{name}/{ALIASES_FILE}", dict[str, int]))
            self._aliases[name] = known
        return dict(known[1])

    def resolve(self, reference: str) -> Manifest:
        """Find the version that ``name``, ``name@alias`` or ``name:version`` means now.

        Raises
        ------
        UnknownModel
            The reference is of no such form, or what it names is not there.
        BrokenManifest
            It is there and cannot be used.
        """
        name, separator, rest = _split_reference(reference)
        if not _NAME.fullmatch(name):
            raise UnknownModel(reference, self.names())
        if separator == ":":
            if not _VERSION.fullmatch(rest):
                raise UnknownModel(reference, self.names(), f"{_quote(rest)} is not a version: use {name}:1")
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

        Raises
        ------
        ValueError
            The name or the version is not a valid one.
        VersionExists
            The version is there already.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{_quote(name)} is not a model name: expected {_NAME.pattern}")
        if version is not None and not _VERSION.fullmatch(str(version)):
            raise ValueError(f"{version!r} is not a version: expected a whole number from 1")
        with self._locked(name):
            manifest = Manifest(
                name=name,
                version=version or max(self.versions(name), default=0) + 1,
                created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
                sha256=hashlib.sha256(content).hexdigest(),
                size=len(content),
                **msgspec.structs.asdict(description),
            )
            if check is not None:
                check(manifest)
            self._publish_version(manifest, content, graph)
        return manifest

    def add_signature(self, name: str, version: int, file: str, signature: bytes) -> None:
        """Put a signature beside the files that it is of; it changes none of them."""
        replace_file(self.version_folder(name, version) / file, signature)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version, at once for all readers.

        Raises
        ------
        UnknownModel
            There is no such version.
        BrokenManifest
            The version cannot be used.
        ValueError
            The alias is not a valid one.
        """
        if not _NAME.fullmatch(alias):
            raise ValueError(f"{_quote(alias)} is not an alias: expected {_NAME.pattern}")
        self.manifest(name, version)
        with self._locked(name):
            aliases = self.aliases(name) | {alias: version}
            replace_file(self._model_folder(name) / ALIASES_FILE, _encode(dict(sorted(aliases.items()))))
            self._aliases.pop(name, None)

    # Inside

    def _model_folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UnknownModel(name, self.names())
        return self.root / name

    def _read_manifest(self, name: str, version: int) -> Manifest:
        versions = self.versions(name)
        if not versions:
            raise UnknownModel(f"{name}:{version}", self.names())
        if version not in versions:
            known = [str(number) for number in versions]
            raise UnknownModel(
                f"{name}:{version}",
                known,
                f"model {name!r} has no version {version}; it has {_list_some(known)}",
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
        version = aliases.get(alias)
        if version is not None:
            try:
                return self.manifest(name, version)
            except UnknownModel as error:
                reason = f"version {version} is not there"
                raise BrokenManifest(f"{name}/{ALIASES_FILE}", f"$.{alias}", reason) from error
        if not self.versions(name):
            raise UnknownModel(reference, self.names())
        known = sorted(aliases)
        there = f"it has {_list_some(known)}" if known else f"it has none; use {name}:{self.versions(name)[-1]}"
        raise UnknownModel(reference, known, f"model {name!r} has no alias {_quote(alias)}; {there}")

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

    def _publish_version(self, manifest: Manifest, content: bytes, graph: bytes | None) -> None:
        target = self.version_folder(manifest.name, manifest.version)
        if target.exists():
            raise VersionExists(f"{manifest.reference} exists already; versions never change")
        # A leading dot is never a version, so a half-written folder is invisible.
        incoming = target.parent / f".incoming-{secrets.token_hex(8)}"
        incoming.mkdir()
        try:
            write_file(incoming / manifest.file, content)
            if manifest.backend.graph is not None and graph is not None:
                write_file(incoming / manifest.backend.graph.file, graph)
            write_file(incoming / MANIFEST_FILE, _encode_manifest(manifest))
            sync_folder(incoming)
            incoming.rename(target)
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        sync_folder(target.parent)


def _split_reference(reference: str) -> tuple[str, str, str]:
    for separator in "@:":
        name, found, rest = reference.partition(separator)
        if found:
            return name, found, rest
    return reference, "", ""


def _describe_unknown(reference: str, known: Sequence[str]) -> str:
    name = _split_reference(reference)[0]
    if not known:
        return f"no model {_quote(name)}: the registry is empty"
    near = difflib.get_close_matches(name[:100], known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    form = "" if _NAME.fullmatch(name) else " (expected name, name@alias or name:version)"
    return f"no model {_quote(name)}{form}; {hint}there is {_list_some(known)}"


def _list_some(known: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return ", ".join(known[:limit]) + more


def _quote(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")


def _list_folders(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if pattern.fullmatch(entry.name) and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


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
