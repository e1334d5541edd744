"""How many rows a chunk of a file has: half a second of work, as far as its model's speed is known."""

from __future__ import annotations

import msgspec
import pytest

from api.intake import choose_chunk_rows
from shared.backend import Backend, Speed
from shared.manifest import Manifest
from shared.signature import Column, Signature

MANIFEST = Manifest(
    name="churn", version=1, created_at="2026-01-01T00:00:00Z", sha256="0" * 64, size=1, libraries={},
    signature=Signature((Column("a"),), "regression"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("speed", "rows"),
    [(1_000_000.0, 500_000), (4_000.0, 2_000), (66.0, 500), (20.0, 200), (2.0, 20), (0.01, 1)],
)
def test_a_chunk_is_half_a_second_of_work(speed: float, rows: int) -> None:
    """Where that is but a few rows it has some more, unless it would then last more than ten seconds."""
    assert choose_chunk_rows(MANIFEST, speed) == rows


def test_a_first_file_is_cut_by_what_registration_measured() -> None:
    """A slow model's first chunk is as small as its later ones; a fast one's is no guess at all costs."""

    def measure(*speeds: float) -> Manifest:
        measured = tuple(Speed(rows=1, estimator=speed) for speed in speeds)
        return msgspec.structs.replace(MANIFEST, backend=Backend(measured=measured))

    assert choose_chunk_rows(MANIFEST, None) == 10_000
    assert choose_chunk_rows(measure(0.5, 2.0), None) == 20
    assert choose_chunk_rows(measure(3_000.0), None) == 1_500
    assert choose_chunk_rows(measure(900_000.0), None) == 10_000
