"""What a view says of itself: its types, statuses and examples, declared beside it.

`api.openapi` puts these together into the document; the types are those that also validate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

View = TypeVar("View", bound=Callable[..., Any])
JSON = "application/json"
PROBLEM = "application/problem+json"

#: From an answer that is a job to all that can be done with it.
JOB_LINKS = {
    name: {"job_id": "$response.body#/id"}
    for name in (
        "jobs_show", "jobs_show_result", "jobs_show_errors", "events_stream_events", "jobs_cancel", "retries_retry",
        "jobs_remove",
    )
}  # fmt: skip


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which an operation ends well.

    Parameters
    ----------
    says : str
        What it means.
    kind : type, tuple of types, or None
        Of its JSON body, one of those if there are several; None: it has none, or it is of another media type.
    media_types : tuple of str
        Of its body, if it is not JSON, or not always.
    example : object
        A body.
    headers : tuple of str
        Names in `api.openapi.HEADERS`.
    links : mapping of str to mapping of str to str
        Ids of operations by which one can go on, and where in the answer each of their parameters is.
    """

    says: str
    kind: Any = None
    media_types: tuple[str, ...] = ()
    example: Any = None
    headers: tuple[str, ...] = ()
    links: Mapping[str, Mapping[str, str]] = {}


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A body that an operation takes: JSON of a type, or bytes of another media type."""

    kind: Any = None
    example: Any = None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation takes and answers.

    Parameters
    ----------
    answers : mapping of int to Answer
        By status.
    problems : tuple of str
        Codes of `api.problems.PROBLEMS` beyond those that every operation may answer.
    query : type or None
        A struct whose fields are the parameters of the query.
    headers : tuple of str
        Names in `api.openapi.REQUEST_HEADERS`.
    bodies : mapping of str to Body
        By media type.
    body_required : bool
    """

    answers: Mapping[int, Answer]
    problems: tuple[str, ...] = ()
    query: type | None = None
    headers: tuple[str, ...] = ()
    bodies: Mapping[str, Body] = {}
    body_required: bool = True


#: Views to what they say of themselves.
_OPERATIONS: dict[Callable[..., Any], Operation] = {}


def describe(answers: Mapping[int, Answer], **members: Any) -> Callable[[View], View]:
    """Declare what the decorated view takes and answers; members are those of `Operation`."""

    def keep(view: View) -> View:
        _OPERATIONS[view] = Operation(answers=answers, **members)
        return view

    return keep


def find_operation(view: Callable[..., Any]) -> Operation:
    """Return what a view says of itself.

    Raises
    ------
    KeyError
        It says nothing.
    """
    return _OPERATIONS[view]
