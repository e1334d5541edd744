"""Blobs, in a folder and in a bucket: the same promises."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import bucket
from shared.blobs import AlteredBlob, Blobs, open_blobs
from shared.errors import StoreUnavailable
from tests.bucket_server import NAME, connect_bucket, serve_bucket
from tests.conftest import WaitUntil


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, wait_until: WaitUntil
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """Serve a bucket."""
    with serve_bucket(tmp_path_factory.mktemp("moto"), wait_until) as served:
        yield served


@pytest.fixture(params=["folder", "bucket", "prefix"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Blobs]:
    """Give an empty place for blobs: a folder, a bucket, or what is below a prefix of it."""
    if request.param == "folder":
        yield open_blobs(str(tmp_path / "blobs"))
        return
    _, environment = request.getfixturevalue("server")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    place = open_blobs(f"s3://{NAME}" + ("/some/prefix" if request.param == "prefix" else ""))
    yield place
    for name in place.list_names(""):
        place.remove_folder(name)
        place.remove(name)


def test_blob_is_read_back_whole_and_by_ranges(blobs: Blobs) -> None:
    """What was written is there, to and from any byte; a range past the end is an error, not fewer bytes."""
    blobs.write("a/b", b"0123456789")

    assert blobs.read("a/b") == b"0123456789"
    assert blobs.read_range("a/b", 2, 5) == b"23456"
    assert blobs.read_range("a/b", 2, 0) == b""
    assert b"".join(blobs.iterate("a/b", 3)) == b"3456789"
    assert b"".join(blobs.iterate("a/b", 3, 7)) == b"3456"
    assert list(blobs.iterate("a/b", 4, 4)) == []
    with pytest.raises(OSError, match="ends at 10"):
        blobs.read_range("a/b", 8, 5)


def test_empty_blob_is_a_blob(blobs: Blobs) -> None:
    """A blob of no bytes is there, and has none."""
    blobs.write("empty", b"")

    assert blobs.read("empty") == b""
    assert list(blobs.iterate("empty")) == []
    assert blobs.find("empty")[0] == 0


def test_missing_blob_is_an_error_of_its_own(blobs: Blobs) -> None:
    """Reading what is not there tells so; removing it is no error, and there is nothing to list."""
    for read in (blobs.read, blobs.find, blobs.open_reader, lambda name: list(blobs.iterate(name))):
        with pytest.raises(FileNotFoundError):
            read("no/such")
    blobs.remove("no/such")
    blobs.remove_folder("no")
    assert blobs.list_names("no") == []


@pytest.mark.parametrize("size", [0, 10, (8 << 20) - 1, 8 << 20, (17 << 20) + 3])
def test_written_blob_is_seen_when_it_is_whole(blobs: Blobs, size: int) -> None:
    """A blob that comes in piece by piece, of any size, is not there before it is closed."""
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    writer = blobs.open_writer("jobs/1/input")
    for start in range(0, size, 1_000_003):
        writer.write(data[start : start + 1_000_003])

    assert blobs.list_names("jobs/1") == []
    writer.close()
    writer.abandon()

    assert blobs.list_names("jobs/1") == ["input"]
    assert blobs.read("jobs/1/input") == data


@pytest.mark.parametrize("size", [10, 9 << 20])
def test_abandoned_blob_leaves_nothing(blobs: Blobs, size: int, request: pytest.FixtureRequest) -> None:
    """A blob that was not finished is not there, and takes no room."""
    writer = blobs.open_writer("jobs/1/input")
    writer.write(b"x" * size)
    writer.abandon()
    writer.abandon()

    assert blobs.list_names("jobs/1") == []
    if isinstance(blobs, bucket.Bucket):
        uploads = connect_bucket(request.getfixturevalue("server")[1]).list_multipart_uploads(Bucket=NAME)
        assert uploads.get("Uploads", []) == []


def test_blob_is_replaced_whole(blobs: Blobs) -> None:
    """A blob that is written again replaces the old one, and its mark is another."""
    blobs.write("part", b"first")
    size, mark = blobs.find("part")
    assert (size, blobs.read_range("part", 0, 5, mark)) == (5, b"first")

    blobs.write("part", b"other")

    assert blobs.read("part") == b"other"
    assert blobs.find("part")[1] != mark
    with pytest.raises(AlteredBlob):
        blobs.read_range("part", 0, 5, mark)


def test_names_are_listed_by_folder(blobs: Blobs) -> None:
    """A folder lists what is directly below it, blobs and folders; removing one leaves its neighbours."""
    for name in ("jobs/1/input", "jobs/1/parts/0", "jobs/10/input", "jobs/2/input"):
        blobs.write(name, b"x")

    assert blobs.list_names("jobs") == ["1", "10", "2"]
    assert blobs.list_names("jobs/1") == ["input", "parts"]
    blobs.remove_folder("jobs/1")
    assert blobs.list_names("jobs") == ["10", "2"]
    assert blobs.read_age_seconds("jobs/2") < 60


def test_copies_are_whole_and_stay(blobs: Blobs) -> None:
    """A copy has the bytes of the first, also after that is removed."""
    for index in range(20):
        blobs.write(f"jobs/1/parts/{index}", b"%d" % index)

    blobs.copy((f"jobs/1/parts/{index}", f"jobs/2/parts/copy-{index}") for index in range(20))
    blobs.remove_folder("jobs/1")

    assert [blobs.read(f"jobs/2/parts/copy-{index}") for index in range(20)] == [b"%d" % i for i in range(20)]


def test_reader_goes_to_any_place(blobs: Blobs) -> None:
    """A reader seeks and reads as a file does."""
    data = bytes(range(256)) * 20_000
    blobs.write("table", data)

    with blobs.open_reader("table") as file:
        file.seek(-10, 2)
        assert file.read() == data[-10:]
        file.seek(1000)
        assert (file.read(2_000_000), file.tell()) == (data[1000:2_001_000], 2_001_000)


def test_store_that_is_away_is_told_soon(
    tmp_path: Path, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that does not answer is an error that says so, without its address; when it is back all is well."""
    with serve_bucket(tmp_path, wait_until) as (server, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        place = open_blobs(f"s3://{NAME}")
        place.check()
        server.kill()
        server.wait()

        with pytest.raises(StoreUnavailable) as caught:
            place.read("x")

        assert "127.0.0.1" not in str(caught.value)
        assert caught.value.code == "store_unavailable"


@pytest.mark.parametrize("address", ["s3://", "ftp://host/path"])
def test_wrong_address_is_refused(address: str) -> None:
    """An address that names no folder and no bucket is refused with what was expected."""
    with pytest.raises(ValueError, match="was expected"):
        open_blobs(address)
