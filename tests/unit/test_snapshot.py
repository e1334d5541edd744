"""A data folder saved into an archive and restored: what is in it, what is refused, and that it is whole or absent."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scorequeue.append_only import FOLDER, MANIFEST, has_lost_manifest
from scorequeue.cli import app
from scorequeue.data_folder import DataFolder, Stores
from scorequeue.snapshot import SnapshotError, restore_data, save_data

BASE, INCREMENT = "appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof"
ENTRIES = f"file {BASE} seq 1 type b\nfile {INCREMENT} seq 1 type i\n"


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """Give a data folder with something of everything in it."""
    folder = DataFolder(tmp_path / "data")
    folder.make()
    write(folder.redis / FOLDER / MANIFEST, ENTRIES)
    write(folder.redis / FOLDER / BASE, "base")
    write(folder.redis / FOLDER / INCREMENT, "commands")
    write(folder.files / "jobs" / "job_1" / "input", "a,b\n1,2\n")
    (folder.files / "jobs" / "job_1" / "parts").mkdir()
    write(folder.models / "iris" / "1" / "manifest.json", "{}")
    return folder


def write(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def list_tree(root: Path) -> dict[str, str | None]:
    """Return each path under a folder: a file's text, None for a folder."""
    return {
        str(path.relative_to(root)): path.read_text() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize("name", ["out.tar", "out.tar.gz", "out.tgz"])
def test_what_is_saved_comes_back(folder: DataFolder, tmp_path: Path, name: str) -> None:
    """Redis's files, the file store and the registry are restored as they were, empty folders too."""
    saved = save_data(folder.root, tmp_path / name, {})
    restored = restore_data(tmp_path / name, tmp_path / "new")

    expected = {path: text for path, text in list_tree(folder.root).items() if path not in ("logs", "run")}
    assert list_tree(tmp_path / "new") == expected
    assert saved == restored
    assert (saved.files, saved.bytes) == (5, sum(len(text) for text in expected.values() if text))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", saved.created_at)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_compression_is_chosen_by_the_name(folder: DataFolder, tmp_path: Path, ending: str) -> None:
    """A name that ends in .gz is compressed, and no other."""
    out = tmp_path / f"out{ending}"

    save_data(folder.root, out, {})

    assert (out.read_bytes()[:2] == b"\x1f\x8b") is (ending == ".tar.gz")


def test_copies_are_for_their_owner_alone(folder: DataFolder, tmp_path: Path) -> None:
    """Neither the archive nor the restored folder can be read by others."""
    save_data(folder.root, tmp_path / "out.tar", {})
    restore_data(tmp_path / "out.tar", tmp_path / "new")

    assert stat.S_IMODE((tmp_path / "out.tar").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_drafts_and_what_is_of_this_start_are_left_out(folder: DataFolder, tmp_path: Path) -> None:
    """Unfinished uploads and parts, locks, logs and sockets are not saved."""
    before = list_tree(folder.root)
    for left_out in (
        folder.files / "jobs" / "job_1" / ".input-0011223344556677",
        folder.files / "jobs" / "job_1" / "parts" / ".0000000-1-abcd",
        folder.models / "iris" / ".lock",
        folder.models / "iris" / ".incoming-1" / "manifest.json",
        folder.redis / FOLDER / "temp-rewriteaof-1.aof",
        folder.logs / "api.log",
        folder.run / "children.json",
        folder.root / "up.lock",
    ):
        write(left_out, "left out")

    save_data(folder.root, tmp_path / "out.tar", {})
    restore_data(tmp_path / "out.tar", tmp_path / "new")

    assert list_tree(tmp_path / "new") == {path: text for path, text in before.items() if path not in ("logs", "run")}


def test_replaced_files_of_redis_are_left_out(folder: DataFolder, tmp_path: Path) -> None:
    """What a rewrite has replaced and not yet deleted is neither saved nor named."""
    with (folder.redis / FOLDER / MANIFEST).open("a") as file:
        file.write("file appendonly.aof.0.incr.aof seq 0 type h\n")

    save_data(folder.root, tmp_path / "out.tar", {})
    restore_data(tmp_path / "out.tar", tmp_path / "new")

    assert (tmp_path / "new" / "redis" / FOLDER / MANIFEST).read_text() == ENTRIES


def test_linked_models_are_saved_as_what_they_lead_to(folder: DataFolder, tmp_path: Path) -> None:
    """A version that is a link is saved whole, and one that leads back to where it is has an end."""
    write(tmp_path / "elsewhere" / "manifest.json", "linked")
    (folder.models / "iris" / "2").symlink_to(tmp_path / "elsewhere")
    (folder.models / "iris" / "3").symlink_to(folder.models)

    save_data(folder.root, tmp_path / "out.tar", {})
    restore_data(tmp_path / "out.tar", tmp_path / "new")

    models = tmp_path / "new" / "models"
    assert (models / "iris" / "2" / "manifest.json").read_text() == "linked"
    assert not (models / "iris" / "3").exists()


def test_stores_elsewhere_are_saved_too(folder: DataFolder, tmp_path: Path) -> None:
    """A file store and a registry outside of the data folder are found as the service was started with them."""
    write(tmp_path / "store" / "jobs" / "job_2" / "input", "elsewhere")
    write(tmp_path / "registry" / "line" / "1" / "manifest.json", "elsewhere")
    environ = {"SCOREQUEUE_FILE_STORE": str(tmp_path / "store"), "SCOREQUEUE_MODELS": str(tmp_path / "registry")}
    folder.note_stores(Stores.from_environ(environ))

    save_data(folder.root, tmp_path / "out.tar", {})
    restore_data(tmp_path / "out.tar", tmp_path / "new")

    restored = list_tree(tmp_path / "new")
    assert restored["files/jobs/job_2/input"] == restored["models/line/1/manifest.json"] == "elsewhere"
    assert "files/jobs/job_1" not in restored


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"SCOREQUEUE_REDIS_URL": "redis://elsewhere"}, "only the embedded Redis is covered"),
        ({"SCOREQUEUE_FILE_STORE": "s3://bucket"}, "s3://bucket, which is not a folder"),
    ],
)
@pytest.mark.parametrize("was_started", [True, False])
def test_what_is_not_in_folders_is_refused(
    folder: DataFolder, tmp_path: Path, environ: dict[str, str], says: str, was_started: bool
) -> None:
    """A Redis of the user's own, or a bucket, is not silently left out: nothing is saved, and it says why."""
    if was_started:
        folder.note_stores(Stores.from_environ(environ))

    with pytest.raises(SnapshotError, match=says) as caught:
        save_data(folder.root, tmp_path / "out.tar", {} if was_started else environ)

    assert caught.value.exit_code == 2
    assert not (tmp_path / "out.tar").exists()


def test_folder_without_data_is_refused(tmp_path: Path) -> None:
    """A folder that is not there, or in which no Redis has run, is an error that says so."""
    empty = DataFolder(tmp_path / "empty")
    empty.make()

    with pytest.raises(SnapshotError, match="no such folder") as missing:
        save_data(tmp_path / "none", tmp_path / "out.tar", {})
    with pytest.raises(SnapshotError, match=f"no Redis has kept anything in {empty.redis}"):
        save_data(empty.root, tmp_path / "out.tar", {})

    assert missing.value.exit_code == 2
    assert list(tmp_path.iterdir()) == [empty.root]


def test_failed_save_keeps_the_earlier_archive(folder: DataFolder, tmp_path: Path) -> None:
    """When something cannot be read, an archive of the same name stays as it was, and no draft is left."""
    out = tmp_path / "out.tar"
    out.write_text("yesterday's")
    (folder.redis / FOLDER / BASE).unlink()

    with pytest.raises(SnapshotError, match=rf"{BASE} is missing, and .*{MANIFEST} names it") as caught:
        save_data(folder.root, out, {})

    assert caught.value.exit_code == 1
    assert out.read_text() == "yesterday's"
    assert sorted(tmp_path.iterdir()) == [folder.root, out]


def test_folder_that_holds_something_is_not_restored_into(folder: DataFolder, tmp_path: Path) -> None:
    """A folder with anything in it is refused and left as it is; an empty one is used."""
    save_data(folder.root, tmp_path / "out.tar", {})
    before = list_tree(folder.root)
    (tmp_path / "empty").mkdir()

    with pytest.raises(SnapshotError, match="is not empty") as caught:
        restore_data(tmp_path / "out.tar", folder.root)
    restore_data(tmp_path / "out.tar", tmp_path / "empty")

    assert caught.value.exit_code == 2
    assert list_tree(folder.root) == before
    assert (tmp_path / "empty" / "redis" / FOLDER / BASE).read_text() == "base"


@pytest.mark.parametrize("name", ["out.tar", "out.tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.8])
def test_archive_that_was_cut_off_is_refused(folder: DataFolder, tmp_path: Path, name: str, share: float) -> None:
    """Of an archive that is not whole nothing is restored, wherever it ends."""
    out = tmp_path / name
    save_data(folder.root, out, {})
    # Either ends with padding, which may well be missing.
    length = out.stat().st_size if name.endswith(".gz") else find_end(out)
    os.truncate(out, int(length * share))

    with pytest.raises(SnapshotError) as caught:
        restore_data(out, tmp_path / "new")

    assert caught.value.exit_code == 1
    assert sorted(tmp_path.iterdir()) == [folder.root, out]


def find_end(archive: Path) -> int:
    """Return where the last member begins."""
    with tarfile.open(archive) as tar:
        return tar.getmembers()[-1].offset


def test_every_byte_is_checked(folder: DataFolder, tmp_path: Path) -> None:
    """A single changed byte in a file is noticed, and nothing is restored."""
    out = tmp_path / "out.tar"
    save_data(folder.root, out, {})
    out.write_bytes(out.read_bytes().replace(b"commands", b"comnands"))

    with pytest.raises(SnapshotError, match="it is damaged"):
        restore_data(out, tmp_path / "new")

    assert sorted(tmp_path.iterdir()) == [folder.root, out]


def make_link(kind: bytes) -> tarfile.TarInfo:
    """Make a member that leads elsewhere."""
    member = tarfile.TarInfo("files/link")
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../outside"),
        tarfile.TarInfo("files/../../outside"),
        tarfile.TarInfo("files/../models/x"),
        tarfile.TarInfo("/outside"),
        tarfile.TarInfo("run/redis.conf"),
        tarfile.TarInfo("stray"),
        make_link(tarfile.SYMTYPE),
        make_link(tarfile.LNKTYPE),
        make_link(tarfile.CHRTYPE),
        make_link(tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.type.decode()}",
)
def test_member_that_does_not_belong_is_refused(folder: DataFolder, tmp_path: Path, member: tarfile.TarInfo) -> None:
    """Names that lead outside, links, devices and folders of other kinds are refused before they are made."""
    save_data(folder.root, tmp_path / "good.tar", {})
    out = change_archive(tmp_path, lambda tar: tar.addfile(member))

    with pytest.raises(SnapshotError, match="it holds what no backup does"):
        restore_data(out, tmp_path / "new")

    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "outside").exists()


def change_archive(folder: Path, add: Callable[[tarfile.TarFile], None]) -> Path:
    """Copy ``good.tar`` with something more after its first member."""
    out = folder / "bad.tar"
    with tarfile.open(folder / "good.tar") as good, tarfile.open(out, "w") as bad:
        for number, member in enumerate(good.getmembers()):
            bad.addfile(member, good.extractfile(member))
            if number == 0:
                add(bad)
    return out


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (None, "it is not a backup"),
        ({"format": "something"}, "something"),
        ({"format": "scorequeue-backup", "version": 2}, "version 2; this release reads 1"),
        (["scorequeue-backup"], "is not an object"),
    ],
)
def test_other_archives_are_refused(tmp_path: Path, header: object, says: str) -> None:
    """A tar file of something else, or of a later release, is refused by its first member."""
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        text = json.dumps(header).encode()
        member = tarfile.TarInfo("scorequeue-backup.json" if header else "readme")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))

    with pytest.raises(SnapshotError, match=says):
        restore_data(tmp_path / "other.tar", tmp_path / "new")

    assert [path.name for path in tmp_path.iterdir()] == ["other.tar"]


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    """Any other file, or none, is an error and no traceback."""
    (tmp_path / "text.tar").write_text("not an archive\n" * 100)

    with pytest.raises(SnapshotError, match="is not a whole archive"):
        restore_data(tmp_path / "text.tar", tmp_path / "new")
    with pytest.raises(SnapshotError, match="is not a file"):
        restore_data(tmp_path / "none.tar", tmp_path / "new")


def test_data_without_a_manifest_is_noticed(folder: DataFolder) -> None:
    """A server would overwrite data whose manifest is gone; a base alone is what a first start left behind."""
    assert not has_lost_manifest(folder.redis)
    (folder.redis / FOLDER / MANIFEST).unlink()
    assert has_lost_manifest(folder.redis)
    (folder.redis / FOLDER / INCREMENT).unlink()
    assert not has_lost_manifest(folder.redis)


def test_commands_print_one_line_and_exit_as_all_do(folder: DataFolder, tmp_path: Path) -> None:
    """`backup` and `restore` say what they did; a refusal is a line on standard error and exit code 2."""
    out = tmp_path / "out.tar"

    saved = CliRunner().invoke(app, ["backup", str(out), "--data", str(folder.root)])
    restored = CliRunner().invoke(app, ["restore", str(out), "--data", str(tmp_path / "new")])
    refused = CliRunner().invoke(app, ["restore", str(out), "--data", str(tmp_path / "new")])

    assert (saved.exit_code, restored.exit_code, refused.exit_code) == (0, 0, 2)
    assert saved.stdout == f"saved 5 files, {5 + 8 + len(ENTRIES) + 7 + 2:,} bytes: {out}\n"
    assert re.fullmatch(
        rf"restored 5 files, \d+ bytes, saved .*Z: {re.escape(str(tmp_path / 'new'))}\n", restored.stdout
    )
    assert refused.stdout == ""
    assert refused.stderr.startswith(f"scorequeue restore: {tmp_path / 'new'} is not empty")
