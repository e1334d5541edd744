"""The file store shows whole files only."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.filestore import FileStore

JOB = "job_1"


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    """Give an empty file store."""
    return FileStore(tmp_path / "files")


def keep(files: FileStore, data: bytes) -> None:
    """Upload `data` as the input of the job."""
    upload = files.begin_upload()
    upload.file.write(data)
    upload.keep(JOB, b"plan")
    upload.discard()


def test_kept_upload_becomes_the_input(files: FileStore) -> None:
    """What was uploaded is read back, by ranges, beside its plan."""
    keep(files, b"0123456789")

    assert files.read_plan(JOB) == b"plan"
    assert files.read_range(JOB, 2, 5) == b"23456"
    assert files.list_jobs() == [JOB]


def test_discarded_upload_leaves_nothing(files: FileStore, tmp_path: Path) -> None:
    """An upload that failed is gone."""
    upload = files.begin_upload()
    upload.file.write(b"half")
    upload.discard()

    assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []


def test_short_input_is_an_error(files: FileStore) -> None:
    """A range past the end is an error, not fewer bytes."""
    keep(files, b"0123")

    with pytest.raises(OSError, match="the input ends at 4"):
        files.read_range(JOB, 2, 5)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (3, None), (3, 7), (0, 0), (9, 10)])
def test_part_is_read_in_ranges(files: FileStore, start: int, stop: int | None) -> None:
    """A part can be read from and to any byte."""
    keep(files, b"")
    files.write_part(JOB, "0-1", b"0123456789")

    assert b"".join(files.read_part(JOB, "0-1", start, stop)) == b"0123456789"[start:stop]


def test_part_is_replaced_whole(files: FileStore, tmp_path: Path) -> None:
    """A part that is written again replaces the old one; nothing half-written stays."""
    keep(files, b"")
    files.write_part(JOB, "0-1", b"first")
    files.write_part(JOB, "0-1", b"second")

    assert b"".join(files.read_part(JOB, "0-1")) == b"second"
    assert [path.name for path in (tmp_path / "files" / "jobs" / JOB / "parts").iterdir()] == ["0-1"]


def test_removing_twice_is_no_error(files: FileStore) -> None:
    """A job without files is removed as well as one with them."""
    keep(files, b"data")
    files.remove(JOB)
    files.remove(JOB)

    assert files.list_jobs() == []
