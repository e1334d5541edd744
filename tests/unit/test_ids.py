"""Job ids prove that they are ours, sort by time, and tell one tenant from another."""

from __future__ import annotations

import pytest

from shared.ids import created_at_ms, is_issued, make_job_id

KEY = b"k" * 32


def test_ids_sort_by_creation() -> None:
    """Ids of later jobs sort after those of earlier ones."""
    ids = [make_job_id(KEY, "t", moment) for moment in (1, 1000, 10**12, 2 * 10**12)]

    assert ids == sorted(ids)
    assert [created_at_ms(job_id) for job_id in ids] == [1, 1000, 10**12, 2 * 10**12]


def test_issued_ids_are_recognised() -> None:
    """An id proves that this service made it for this tenant."""
    assert is_issued(make_job_id(KEY, "t"), KEY, "t")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job_id: job_id[:10] + ("0" if job_id[10] != "0" else "1") + job_id[11:],
        lambda job_id: job_id[:-3] + ("0" if job_id[-3] != "0" else "1") + job_id[-2:],
        lambda job_id: job_id[:-1],
        lambda job_id: job_id + "0",
        lambda job_id: "xob_" + job_id[4:],
        lambda _: "",
        lambda _: "job_é" + "0" * 33,
    ],
    ids=["time", "mark", "short", "long", "prefix", "empty", "not ASCII"],
)
def test_other_texts_are_not_ours(spoil: object) -> None:
    """Whatever was not issued is unknown."""
    assert callable(spoil)
    assert not is_issued(spoil(make_job_id(KEY, "t")), KEY, "t")


def test_ids_of_another_tenant_or_service_are_not_ours() -> None:
    """Neither another tenant nor another service's key recognises an id."""
    job_id = make_job_id(KEY, "t")

    assert not is_issued(job_id, KEY, "u")
    assert not is_issued(job_id, b"l" * 32, "t")


def test_ids_differ() -> None:
    """Ids of the same millisecond differ."""
    assert len({make_job_id(KEY, "t", 5) for _ in range(1000)}) == 1000
