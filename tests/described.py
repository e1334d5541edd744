"""Every answer of the app under test is held against the OpenAPI document: its status, its media type and its shape."""

from __future__ import annotations

import functools
import gzip
import json
from typing import Any

import jsonschema_rs
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from api.openapi import build_document

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
#: Kept by no app: of thousands of tests each has its own, and none may outlive its test.
_DOCUMENT: dict[str, Any] = {}
_FOREIGN = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


class DescribedClient(FlaskClient):
    """A client that takes no answer which the document does not have."""

    def open(self, *arguments: Any, **members: Any) -> TestResponse:
        """Make a request and check its answer."""
        response = super().open(*arguments, **members)
        check_answer(self.application, response)
        return response


def check_answer(app: Flask, response: TestResponse) -> None:
    """Check that an answer is one that the document says its operation gives."""
    method, path = response.request.method, response.request.path
    if method == "OPTIONS":
        return
    try:
        rule, _ = app.url_map.bind("").match(path, "GET" if method == "HEAD" else method, return_rule=True)
    except HTTPException:  # no operation, so only the form of its refusal is said
        check_shape(app, response, _FOREIGN if path.startswith("/v2") else _PROBLEM)
        return
    document = describe_app(app)
    described = document["paths"][name_path(rule.rule)]["get" if method == "HEAD" else method.lower()]["responses"]
    where = f"{method} {rule.rule} {response.status_code}"
    assert str(response.status_code) in described, f"{where} is not described: {response.text[:500]}"
    answer = described[str(response.status_code)]
    for name in set(response.headers.keys()) & set(document["components"]["headers"]):
        assert name in answer["headers"] or name.startswith("RateLimit"), f"{where}: {name} is not described"
    if method == "HEAD" or response.status_code in (204, 304):
        return
    assert response.mimetype in answer["content"], f"{where}: {response.mimetype} is not described"
    if response.mimetype.endswith(("/json", "+json")):
        check_shape(app, response, answer["content"][response.mimetype]["schema"])


def check_shape(app: Flask, response: TestResponse, schema: dict[str, Any]) -> None:
    """Check an answer against a schema of the document."""
    if response.request.method == "HEAD":
        return
    data = response.get_data()
    body = json.loads(gzip.decompress(data) if response.headers.get("Content-Encoding") == "gzip" else data)
    describe_app(app)
    _compile(json.dumps(schema)).validate(body)


def describe_app(app: Flask) -> dict[str, Any]:
    """Return the document of an app; all have the same, so it is made of the first."""
    if not _DOCUMENT:
        _DOCUMENT.update(build_document(app, "0"))
    return _DOCUMENT


def name_path(rule: str) -> str:
    """Return a route as the document names it."""
    return "/".join(f"{{{part[1:-1].rpartition(':')[2]}}}" if part[:1] == "<" else part for part in rule.split("/"))


@functools.cache
def _compile(schema: str) -> Any:
    document = {"components": _DOCUMENT["components"], **json.loads(schema)}
    return jsonschema_rs.validator_for(document, validate_formats=True)
