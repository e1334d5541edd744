"""The OpenAPI document and the pages that show it; beside that, every answer that any test gets is held against it."""

from __future__ import annotations

import gzip
import json
import re

from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.api_under_test import ApiUnderTest
from tests.described import name_path


def test_document_is_valid(api: ApiUnderTest) -> None:
    """What is served is OpenAPI 3.1, by the specification's own schema; every reference leads somewhere."""
    document = api.http.get("/openapi.json").get_json()

    assert document["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_route_is_described(api: ApiUnderTest) -> None:
    """Each route and method of the app is in the document, with a summary, and nothing else is."""
    document = api.http.get("/openapi.json").get_json()

    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    routes = {
        (name_path(rule.rule), method)
        for rule in api.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described == routes
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"], operation["operationId"]
        assert operation["tags"], operation["operationId"]


def test_examples_fit_their_schemas(api: ApiUnderTest) -> None:
    """Each example of a body or an answer is one that its schema allows."""
    import jsonschema_rs

    document = api.http.get("/openapi.json").get_json()
    checked = 0
    for item in document["paths"].values():
        for operation in item.values():
            contents = [*operation.get("requestBody", {}).get("content", {}).values()]
            contents += [
                kind for answer in operation["responses"].values() for kind in answer.get("content", {}).values()
            ]
            for content in contents:
                named = [document["components"]["examples"][code] for code in content.get("examples", ())]
                values = [content["example"]] if "example" in content else [example["value"] for example in named]
                validator = jsonschema_rs.validator_for({"components": document["components"], **content["schema"]})
                for value in values:
                    validator.validate(value)
                    checked += 1
    assert checked > 50


def test_webhook_is_described(api: ApiUnderTest) -> None:
    """The document says what a webhook is sent, and with which headers."""
    webhook = api.http.get("/openapi.json").get_json()["webhooks"]["job-ended"]["post"]

    assert {parameter["name"] for parameter in webhook["parameters"]} == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
    assert webhook["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/WebhookMessage")


def test_pages_need_nothing_from_elsewhere(api: ApiUnderTest) -> None:
    """Both pages name only files that the service itself has, and their policy forbids all others."""
    for page in ("/docs", "/redoc"):
        response = api.http.get(page)
        assert response.mimetype == "text/html"
        assert "script-src 'self';" in response.headers["Content-Security-Policy"]
        named = re.findall(r'(?:src|href|spec-url)="([^"]+)"', response.text)
        assert len(named) >= 3
        for name in named:
            if name != "data:,":
                assert "//" not in name
                assert api.http.get(f"/{name}").status_code == 200
        assert not re.search(r"<script(?![^>]* src=)", response.text), "a script in the page itself"


def test_assets_are_sent_once(api: ApiUnderTest) -> None:
    """A file of a page comes compressed where that is taken, and not again while it is the same."""
    plain = api.http.get("/assets/swagger-ui.css")
    packed = api.http.get("/assets/swagger-ui.css", headers={"Accept-Encoding": "br, gzip"})

    assert (plain.headers.get("Content-Encoding"), packed.headers["Content-Encoding"]) == (None, "gzip")
    assert gzip.decompress(packed.data) == plain.data
    assert plain.headers["ETag"] != packed.headers["ETag"]
    again = api.http.get("/assets/swagger-ui.css", headers={"If-None-Match": plain.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert api.http.get("/assets/..%2Fpages.py").status_code == 404
    assert api.http.get("/assets/../pages.py").status_code == 404


def test_large_json_is_compressed_for_those_who_take_it(api: ApiUnderTest) -> None:
    """A large JSON answer is compressed where ``Accept-Encoding`` allows it, its ETag then weak; a small one never."""
    job_id = api.submit_rows([[5.1, 3.5, 1.4, 0.2]] * 2000)
    api.score()
    address = f"/v1/jobs/{job_id}/result"

    plain = api.http.get(address)
    packed = api.http.get(address, headers={"Accept-Encoding": "gzip"})

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) == len(packed.data) < len(plain.data) / 5
    assert json.loads(gzip.decompress(packed.data)) == plain.get_json()
    assert "Accept-Encoding" in packed.headers["Vary"]
    for refused in ("identity", "gzip;q=0", "br", "identity, gzip;q=0.5"):
        assert "Content-Encoding" not in api.http.get(address, headers={"Accept-Encoding": refused}).headers
    small = api.http.get(f"/v1/jobs/{job_id}", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in small.headers
