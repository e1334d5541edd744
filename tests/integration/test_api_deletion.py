"""A job that is deleted while it is scored leaves nothing behind, and its worker goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.filestore import FileStore
from tests.api_under_test import ApiUnderTest


def delete_before(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch, method: str, job_id: str) -> None:
    """Delete the job in the moment in which the worker begins to write for it."""
    original: Callable[..., Any] = getattr(FileStore, method)

    def delete_first(self: FileStore, *arguments: Any) -> Any:
        monkeypatch.setattr(FileStore, method, original)
        assert api.http.delete(f"/v1/jobs/{job_id}").status_code == 204
        return original(self, *arguments)

    monkeypatch.setattr(FileStore, method, delete_first)


def test_large_result_of_a_deleted_job_is_dropped(
    start_api: Callable[..., ApiUnderTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large result that is refused does not stay in the file store."""
    api = start_api(inline_bytes=50)
    job_id = api.submit_rows()
    delete_before(api, monkeypatch, "write_blob", job_id)

    api.score()

    assert api.list_kept_files() == []


def test_chunk_of_a_deleted_job_harms_no_other(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker keeps its lease and scores the next file."""
    job_id = api.submit_file(b"a,b\n1,2\n", "line")
    other = api.submit_file(b"a,b\n1,2\n", "line")
    delete_before(api, monkeypatch, "write_part", job_id)

    api.score()

    assert api.get_job(other)["status"] == "succeeded"
    assert {name.split("/")[1] for name in api.list_kept_files()} == {other}
