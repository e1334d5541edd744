"""The files of jobs: there before the job, and gone with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.filestore import FileStore
from shared.folder import Folder
from shared.plans import Plan

JOB = "job_1"
PLAN = Plan(b"", 0, 0, ())


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    """Give an empty file store."""
    return FileStore(Folder(tmp_path / "files"))


def keep(files: FileStore, data: bytes, job_id: str = JOB) -> None:
    """Upload `data` as the input of a job."""
    upload = files.begin_upload(job_id)
    upload.write(data)
    upload.close_input()
    upload.keep(b"plan")
    upload.discard()


def list_files(tmp_path: Path) -> list[str]:
    """List the files in the store's folder."""
    return sorted(path.name for path in (tmp_path / "files").rglob("*") if path.is_file())


def test_kept_upload_becomes_the_input(files: FileStore) -> None:
    """What was uploaded is read back, by ranges, beside its plan."""
    keep(files, b"0123456789")

    assert files.read_plan(JOB) == b"plan"
    assert files.get_input(JOB, PLAN).read_range(2, 5) == b"23456"
    assert files.list_jobs() == [JOB]


@pytest.mark.parametrize("closed", [True, False])
def test_discarded_upload_leaves_nothing(files: FileStore, tmp_path: Path, closed: bool) -> None:
    """An upload that failed is gone, whether its input was whole or not."""
    upload = files.begin_upload(JOB)
    upload.write(b"half")
    if closed:
        upload.close_input()
    upload.discard()

    assert list_files(tmp_path) == []
    assert files.list_jobs() == []


def test_short_input_is_an_error(files: FileStore) -> None:
    """A range past the end is an error, not fewer bytes."""
    keep(files, b"0123")

    with pytest.raises(OSError, match="ends at 4"):
        files.get_input(JOB, PLAN).read_range(2, 5)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (3, None), (3, 7), (0, 0), (9, 10)])
def test_part_is_read_in_ranges(files: FileStore, start: int, stop: int | None) -> None:
    """A part can be read from and to any byte."""
    keep(files, b"")
    files.write_part(JOB, "0-1", b"0123456789")

    assert b"".join(files.read_part(JOB, "0-1", start, stop)) == b"0123456789"[start:stop]


def test_retry_has_the_input_and_parts_of_the_job_before(files: FileStore) -> None:
    """They stay when the job before is removed."""
    keep(files, b"input")
    files.write_part(JOB, "0-1", b"part")
    upload = files.begin_upload("job_2")
    upload.take_input(JOB)
    upload.take_parts(JOB, [("0-1", "earlier")])
    upload.keep(b"plan")
    files.remove(JOB)

    assert files.get_input("job_2", PLAN).read_range(0, 5) == b"input"
    assert b"".join(files.read_part("job_2", "earlier")) == b"part"


def test_missing_part_is_told_before_a_byte_is_sent(files: FileStore) -> None:
    """Of the parts of a result, each must be there."""
    keep(files, b"")
    files.write_part(JOB, "0-1", b"part")

    files.check_parts(JOB, ["0-1"])
    with pytest.raises(FileNotFoundError, match="1-1"):
        files.check_parts(JOB, ["0-1", "1-1"])


def test_removing_twice_is_no_error(files: FileStore) -> None:
    """A job without files is removed as well as one with them."""
    keep(files, b"data")
    files.remove(JOB)
    files.remove(JOB)

    assert files.list_jobs() == []
