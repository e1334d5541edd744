"""The OpenAPI 3.1 document: the routes of the app, and what their views say of themselves (`api.operations`)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec
from flask import Flask
from werkzeug.routing import Rule

from api.operations import JSON, PROBLEM, Answer, Operation, find_operation
from api.problems import PROBLEMS, describe_problem
from api.scopes import PAGES, PROBES, find_scope
from api.shapes import Problem, WebhookMessage

#: Methods that Flask answers by itself: said once for all.
_IMPLIED = {"HEAD", "OPTIONS"}
_REFERENCE = "#/components/schemas/{name}"
#: What every call that needs a key may be answered.
_COMMON_PROBLEMS = ("unauthenticated", "forbidden", "rate_limited", "store_unavailable", "internal_error")
_PAGE_PROBLEMS = ("forbidden", "store_unavailable", "internal_error")

#: Of a problem document, by its status.
_PROBLEM_HEADERS = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    409: ("Retry-After",),
    416: ("Content-Range",),
    429: ("Retry-After",),
    503: ("Retry-After",),
    507: ("Retry-After",),
}
_TEXT = {"type": "string"}
_WHOLE = {"type": "integer", "minimum": 0}

HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "X-Request-Id": ("The request's id, in the logs too: the caller's own, or one made here.", _TEXT),
    "RateLimit": ("What is left of the limits (IETF draft).", _TEXT),
    "RateLimit-Policy": ("The limits (IETF draft).", _TEXT),
    "Retry-After": ("Seconds after which it makes sense to ask again.", _WHOLE),
    "Location": ("The job.", {"type": "string", "format": "uri-reference"}),
    "Preference-Applied": ("The preference that was honoured (RFC 7240).", _TEXT),
    "ETag": ("Of this state, for `If-None-Match`.", _TEXT),
    "Link": ('The next page, as `rel="next"` (RFC 8288); absent on the last.', _TEXT),
    "Allow": ("The methods that are allowed here.", _TEXT),
    "Accept-Ranges": ("Ranges of bytes may be asked for.", _TEXT),
    "Content-Range": ("Which bytes these are.", _TEXT),
    "Content-Disposition": ("A name for the file.", _TEXT),
    "Scorequeue-Rows": ("Of a partial result: its rows.", _WHOLE),
    "Inference-Header-Content-Length": ("Bytes of JSON at the beginning of the body; tensors follow.", _WHOLE),
    "WWW-Authenticate": ("Which authentication is expected.", _TEXT),
}

REQUEST_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Prefer": (
        "`wait=10`: answer when the job has ended, or after so many seconds (RFC 7240).",
        {"type": "string", "examples": ["wait=10"]},
    ),
    "Prefer-Async": ("`respond-async`: answer with a job at once (RFC 7240).", {"type": "string"}),
    "Idempotency-Key": (
        "Names the submission (IETF draft): when it is repeated, the answer is the first job. Kept for 24 hours.",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    ),
    "If-None-Match": ("Of an earlier answer: 304 if nothing has changed.", _TEXT),
    "Range": ("`bytes=0-499`: a part of the file.", _TEXT),
    "If-Range": ("The range, if the `ETag` is still this one; else the whole.", _TEXT),
    "Content-Encoding": ("How the body is compressed.", {"enum": ["identity", "gzip", "zstd"]}),
    "Content-Digest": ("Of the body (RFC 9530), which then needs no `Content-Length`.", _TEXT),
    "Last-Event-ID": ("The last event that was heard.", _TEXT),
    "traceparent": (
        "The caller's trace (W3C Trace Context), kept with the job.",
        {"type": "string", "examples": ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]},
    ),
    "Inference-Header-Content-Length": ("Bytes of JSON at the beginning of the body; tensors follow.", _WHOLE),
}

PATH_PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "job_id": ("Id of a job.", _TEXT),
    "delivery_id": ("Id of a delivery.", _TEXT),
    "name": ("Name of a model.", _TEXT),
    "model": ("A model: `name`, `name@alias` or `name:version`.", _TEXT),
    "version": ("Number of a version.", {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}),
    "alias": ("Name of an alias.", {"type": "string", "examples": ["champion"]}),
    "asset": ("Name of a file of the page.", _TEXT),
}

_TAGS = {
    "jobs": ("Jobs", "Submit rows or a file, watch, fetch, cancel, retry."),
    "models": ("Models", "What is registered, what it expects, and which version an alias means."),
    "queues": ("Queues", "What waits, and pausing it."),
    "webhooks": ("Webhooks", "What was told to webhooks."),
    "compatible": ("Compatible endpoints", "Other protocols, translated to the same queue."),
    "service": ("Service", "Probes, metrics and pages."),
}
_TAG_OF = {
    "retries": "jobs",
    "events": "jobs",
    "dead_letters": "jobs",
    "inference": "compatible",
    "invocations": "compatible",
    "pages": "service",
    "quality": "models",
}

_ABOUT = """\
Rows are scored by scikit-learn models through a durable queue: submit, get a job id at once, fetch the result later.

Errors are problem documents (RFC 9457), except under `/v2`. `HEAD` is answered wherever `GET` is, and `OPTIONS`
everywhere. Large JSON is compressed where `Accept-Encoding` allows it. Where no key is configured, calls from the same
machine need none.
"""

Document = dict[str, Any]


def build_document(app: Flask, version: str) -> Document:
    """Describe all routes of an app.

    Parameters
    ----------
    app : Flask
    version : str
        Of the service.

    Raises
    ------
    KeyError
        A view says nothing of itself, or a parameter is not known here.
    """
    routes = [
        (rule, method, view, find_operation(view))
        for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule)
        for method in sorted((rule.methods or set()) - _IMPLIED)
        for view in [app.view_functions[rule.endpoint]]
    ]
    schemas = _Schemas([operation for _, _, _, operation in routes])
    paths: dict[str, dict[str, Any]] = {}
    for rule, method, view, operation in routes:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        paths.setdefault(path, {})[method.lower()] = _describe_operation(rule, method, view, operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "scorequeue", "version": version, "description": _ABOUT, "license": {"name": "MIT"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": says} for name, says in _TAGS.values()],
        "paths": paths,
        "webhooks": {"job-ended": {"post": _describe_webhook(schemas)}},
        "components": {
            "schemas": schemas.components,
            "headers": {name: {"description": says, "schema": schema} for name, (says, schema) in HEADERS.items()},
            "examples": {code: {"value": _make_example(code)} for code in PROBLEMS},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A key, made by `scorequeue keys create`."}
            },
        },
    }


class _Schemas:
    """The schemas of all types, made in one call so that they share their components."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._kinds: list[Any] = [Problem, WebhookMessage]
        for operation in operations:
            for answer in operation.answers.values():
                self._kinds += _list_kinds(answer.kind)
            for body in operation.bodies.values():
                self._kinds += _list_kinds(body.kind)
        self._found, components = msgspec.json.schema_components(self._kinds, ref_template=_REFERENCE)
        self.components = {name: _shorten(component) for name, component in sorted(components.items())}

    def refer(self, kind: Any) -> Document:
        """Return a reference to the schema of a type, or of one of several."""
        references = [self._found[self._kinds.index(one)] for one in _list_kinds(kind)]
        return dict(references[0]) if len(references) == 1 else {"anyOf": references}


def _list_kinds(kind: Any) -> tuple[Any, ...]:
    return () if kind is None else kind if isinstance(kind, tuple) else (kind,)


def _shorten(component: Document) -> Document:
    """Leave out of a docstring what is said by the schema."""
    if "description" in component:
        component["description"] = _read_text(component["description"])
    return component


def _read_text(docstring: str) -> str:
    text = inspect.cleandoc(docstring)
    return re.split(r"\n\n(?:Parameters|Returns|Raises|Yields)\n-+\n", text)[0]


def _describe_operation(
    rule: Rule, method: str, view: Callable[..., Any], operation: Operation, schemas: _Schemas
) -> Document:
    summary, _, rest = _read_text(view.__doc__ or "").partition("\n")
    room = rule.endpoint.partition(".")[0]
    scope = find_scope(rule.rule, method)
    document: Document = {
        "operationId": name_operation(rule),
        "summary": summary.rstrip("."),
        "tags": [_TAGS[_TAG_OF.get(room, room)][0]],
    }
    if rest.strip():
        document["description"] = rest.strip()
    if parameters := [*_list_path(rule), *_list_query(operation), *_list_headers(operation)]:
        document["parameters"] = parameters
    if operation.bodies:
        document["requestBody"] = {
            "required": operation.body_required,
            "content": {
                media_type: _describe_content(body.kind, body.example, schemas)
                for media_type, body in operation.bodies.items()
            },
        }
    document["responses"] = {
        str(status): _describe_answer(answer, schemas) for status, answer in sorted(operation.answers.items())
    } | _describe_problems(rule, operation)
    document["security"] = [{"key": [scope] if scope else []}] if _needs_key(rule) else []
    return document


def name_operation(rule: Rule) -> str:
    """Return the id of an operation; a view with several routes has one for each."""
    name = rule.endpoint.replace(".", "_")
    return f"{name}_version" if rule.rule.startswith("/v2/models/<model>/versions/") else name


def _needs_key(rule: Rule) -> bool:
    return rule.rule not in PROBES | PAGES


def _list_path(rule: Rule) -> list[Document]:
    found = []
    for name in re.findall(r"<(?:\w+:)?(\w+)>", rule.rule):
        says, schema = PATH_PARAMETERS[name]
        found.append({"name": name, "in": "path", "required": True, "description": says, "schema": schema})
    return found


def _list_query(operation: Operation) -> list[Document]:
    if operation.query is None:
        return []
    (reference,), components = msgspec.json.schema_components([operation.query], ref_template=_REFERENCE)
    struct = components[reference["$ref"].rpartition("/")[2]]
    parameters = []
    for name, schema in struct["properties"].items():
        document = {"name": name, "in": "query", "required": name in struct["required"]}
        says, plain = _split_description(_drop_null(schema))
        parameters.append(document | ({"description": says} if says else {}) | {"schema": plain})
    return parameters


def _drop_null(schema: Document) -> Document:
    """Return the schema of a parameter: in a query, what is not given is left out."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)}
    if not choices:
        return rest
    return rest | choices[0] if len(choices) == 1 else rest | {"anyOf": choices}


def _split_description(schema: Document) -> tuple[str, Document]:
    return schema.get("description", ""), {key: value for key, value in schema.items() if key != "description"}


def _list_headers(operation: Operation) -> list[Document]:
    parameters = []
    for name in operation.headers:
        says, schema = REQUEST_HEADERS[name]
        sent_as = name.removesuffix("-Async")
        parameters.append({"name": sent_as, "in": "header", "required": False, "description": says, "schema": schema})
    return parameters


def _describe_content(kind: Any, example: Any, schemas: _Schemas) -> Document:
    content: Document = {"schema": {} if kind is None else schemas.refer(kind)}
    if example is not None:
        content["example"] = example
    return content


def _describe_answer(answer: Answer, schemas: _Schemas) -> Document:
    document: Document = {"description": answer.says, "headers": _refer_headers(answer.headers)}
    content = {media_type: Document({"schema": {}}) for media_type in answer.media_types if media_type != JSON}
    if answer.kind is not None:
        content[JSON] = _describe_content(answer.kind, answer.example, schemas)
    if content:
        document["content"] = content
    if answer.links:
        document["links"] = {
            name: {"operationId": name, "parameters": dict(parameters)} for name, parameters in answer.links.items()
        }
    return document


def _refer_headers(names: Iterable[str]) -> Document:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *names)}


def _describe_problems(rule: Rule, operation: Operation) -> Document:
    common = _COMMON_PROBLEMS if _needs_key(rule) else _PAGE_PROBLEMS if rule.rule in PAGES else ()
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys((*operation.problems, *common)):
        by_status.setdefault(PROBLEMS[code][0], []).append(code)
    is_foreign = rule.rule.startswith("/v2")
    describe = _describe_foreign_error if is_foreign else _describe_problem
    return {str(status): describe(codes) for status, codes in sorted(by_status.items())}


def _describe_problem(codes: list[str]) -> Document:
    says = "; ".join(f"`{code}`: {PROBLEMS[code][1].lower()}" for code in codes) + "."
    examples = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
    schema = {"allOf": [{"$ref": "#/components/schemas/Problem"}, {"properties": {"code": {"enum": codes}}}]}
    return {
        "description": says,
        "headers": _refer_headers(_PROBLEM_HEADERS.get(PROBLEMS[codes[0]][0], ())),
        "content": {PROBLEM: {"schema": schema, "examples": examples}},
    }


def _make_example(code: str) -> Document:
    status, title = PROBLEMS[code]
    members: Document = {}
    if status == 422:
        fault = {"pointer": "#/rows/0/1", "column": "age", "code": "missing_value", "detail": "a number is needed"}
        members = {"errors": [fault]}
    return describe_problem(code, f"{title}; what was wrong and what was expected stands here.", "/v1/jobs", **members)


def _describe_foreign_error(codes: list[str]) -> Document:
    says = "; ".join(PROBLEMS[code][1] for code in codes) + "."
    schema = {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}
    headers = _refer_headers(_PROBLEM_HEADERS.get(PROBLEMS[codes[0]][0], ()))
    return {"description": says, "headers": headers, "content": {JSON: {"schema": schema}}}


def _describe_webhook(schemas: _Schemas) -> Document:
    headers: list[tuple[str, str, Literal["string", "integer"]]] = [
        ("webhook-id", "Of the delivery; the same at every attempt.", "string"),
        ("webhook-timestamp", "Unix seconds of the attempt.", "integer"),
        (
            "webhook-signature",
            "`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; several during a rotation.",
            "string",
        ),
    ]
    return {
        "operationId": "job_ended",
        "summary": "A job has ended",
        "description": "Sent as Standard Webhooks says to the `webhook` of a job, and again until the answer is 2xx.",
        "tags": [_TAGS["webhooks"][0]],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": says, "schema": {"type": kind}}
            for name, says, kind in headers
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": schemas.refer(WebhookMessage)}}},
        "responses": {"2XX": {"description": "It was received."}, "410": {"description": "Send no more of it."}},
        "security": [],
    }
