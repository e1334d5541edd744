"""The metrics of data quality, read from Redis: the same from every API process."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from shared.manifest import Manifest
from shared.quality import measure_shift
from shared.quality_counts import Counted, QualityCounts, name_version

_MODEL = ["model", "version"]
_COLUMN = [*_MODEL, "column"]


def collect_quality(store: QualityCounts, manifests: Sequence[Manifest]) -> list[Metric]:
    """Read what was counted of each version; columns of which nothing was counted are left out."""
    rows = CounterMetricFamily("scorequeue_quality_rows", "Rows whose values and scores were counted.", labels=_MODEL)
    missing = CounterMetricFamily("scorequeue_missing_values", "Rows without a value in a column.", labels=_COLUMN)
    unseen = CounterMetricFamily(
        "scorequeue_unseen_categories", "Rows with a category that the training sample did not have.", labels=_COLUMN
    )
    ranged = CounterMetricFamily(
        "scorequeue_out_of_range_values", "Rows with a number outside of the training sample's range.", labels=_COLUMN
    )
    refused = CounterMetricFamily(
        "scorequeue_refused_values", "Rows refused for a column before the model saw them.", labels=[*_COLUMN, "code"]
    )
    recent_rows = GaugeMetricFamily(
        "scorequeue_quality_recent_rows", "Rows counted in this hour and the one before.", labels=_MODEL
    )
    shift = GaugeMetricFamily(
        "scorequeue_score_psi",
        "Population stability index of the scores of this hour and the one before, against the training sample's.",
        labels=[*_MODEL, "score"],
    )
    counted = store.read([name_version(manifest) for manifest in manifests])
    for manifest, (total, recent) in zip(manifests, counted, strict=True):
        labels = [manifest.name, str(manifest.version)]
        rows.add_metric(labels, total.rows)
        recent_rows.add_metric(labels, recent.rows)
        for place, column in enumerate(manifest.signature.columns):
            outside = unseen if column.min is None else ranged
            for family, count in ((missing, total.missing(place)), (outside, total.outside(place))):
                if count:
                    family.add_metric([*labels, column.name], count)
            for code, count in total.refused(place).items():
                refused.add_metric([*labels, column.name, code], count)
        _add_shifts(shift, labels, manifest, recent)
    return [rows, missing, unseen, ranged, refused, recent_rows, shift]


def _add_shifts(shift: GaugeMetricFamily, labels: list[str], manifest: Manifest, recent: Counted) -> None:
    for place, score in enumerate(() if manifest.quality is None else manifest.quality.scores):
        found = recent.bins(place, len(score.counts))
        if any(found):
            shift.add_metric([*labels, score.name], measure_shift(score.counts, found))
