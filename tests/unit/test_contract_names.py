"""Names of the contract that no request shows: codes, statuses, metrics and the Python client."""

from __future__ import annotations

import inspect

import pytest

import scorequeue
from api.problems import PROBLEMS
from shared import metrics
from shared.jobs import Status

#: The contract's table of errors, and 416, which RFC 9110 has for a range beyond the end.
CODES = {
    400: "malformed_json malformed_csv malformed_file incomplete_upload invalid_parameter", 401: "unauthenticated",
    403: "forbidden", 404: "not_found unknown_model unknown_job", 405: "method_not_allowed", 410: "job_gone",
    411: "length_required", 409: "job_not_finished job_canceled job_terminal idempotency_in_progress",
    413: "payload_too_large", 415: "unsupported_media_type", 416: "range_not_satisfiable",
    422: "schema_mismatch column_collision idempotency_conflict", 429: "queue_full rate_limited",
    500: "model_error worker_lost internal_error", 504: "deadline_exceeded",
    503: "store_unavailable overloaded model_not_ready", 507: "storage_full",
}  # fmt: skip
METRICS = """
queue_depth queue_rows outstanding_rows queue_oldest_age_seconds jobs_submitted_total jobs_finished_total
job_queue_seconds job_duration_seconds micro_batch_rows micro_batch_jobs micro_batches_total predict_seconds rows_total
bisections_total redeliveries_total strikes_total dead_letters_total rejected_requests_total model_info
model_load_seconds model_ready workers worker_heartbeat_age_seconds http_requests_total http_request_duration_seconds
webhook_deliveries_total redis_up
"""
_READ = inspect.getsource(metrics)


def test_codes_have_the_status_of_the_contract() -> None:
    """Every code of the table of errors, with its status, and no other."""
    assert {code: status for code, (status, _) in PROBLEMS.items()} == {
        code: status for status, codes in CODES.items() for code in codes.split()
    }


def test_statuses_are_those_of_the_contract() -> None:
    """A job has these statuses and no others; all but two are terminal."""
    terminal = {"succeeded", "partially_succeeded", "failed", "canceled", "expired"}
    assert {str(status) for status in Status} == terminal | {"queued", "running"}
    assert {str(status) for status in Status if status.is_terminal} == terminal


@pytest.mark.parametrize("name", METRICS.split())
def test_metric_is_there(name: str) -> None:
    """Each metric of the contract has its name in the code that makes it."""
    assert f'"scorequeue_{name.removesuffix("_total")}"' in _READ


def test_client_has_the_calls_of_the_contract() -> None:
    """The Python client has the methods of the contract."""
    for name in ("score", "submit", "score_file"):
        assert callable(getattr(scorequeue.Client, name))
