"""Rows that a model takes, for a share of the requests: without them hardly any job would ever be made."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis.core.parameters import ParameterLocation

from tests.api_under_test import IRIS_ROWS

_JOBS = "POST /v1/jobs"


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Put rows that fit into three of four submissions that the document allows."""
    body = case.body
    if case.operation.label != _JOBS or not isinstance(body, dict) or "rows" not in body:
        return
    if case.meta is not None and case.meta.is_negative_at(ParameterLocation.BODY):
        return
    if len(str(body)) % 4:
        body.pop("webhook", None)
        body.update({"model": "iris", "rows": IRIS_ROWS})
