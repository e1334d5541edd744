"""The console: its files by HTTP, and in a real browser what it makes of keys, scopes and outages."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from werkzeug.serving import make_server

import api as front_end
from shared.keys import SCOPES, KeyStore
from tests.api_under_test import ApiUnderTest, assert_problem
from tests.browser import PATIENCE_MS, open_browser
from tests.integration.test_api_control import kill_by

STATIC = Path(front_end.__file__).parent / "static"
SCRIPTS = sorted(STATIC.glob("console*.js"))

# Nothing here depends on which server keeps the jobs.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)
expect.set_options(timeout=PATIENCE_MS)


@contextlib.contextmanager
def serve(api: ApiUnderTest) -> Iterator[str]:
    """Serve an app for a browser; give its address."""
    server = make_server("127.0.0.1", 0, api.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()


def test_page_brings_all_it_needs_and_lets_nothing_else_in(api: ApiUnderTest) -> None:
    """All that the page and its modules name is served here, and the policy allows nothing inline or from elsewhere."""
    page = api.http.get("/")

    assert (page.status_code, page.mimetype) == (200, "text/html")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert (policy["require-trusted-types-for"], policy["trusted-types"]) == ("'script'", "'none'")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", page.text)
    named = set(re.findall(r'(?:src|href)="(assets/[^"]+)"', page.text))
    assert named == {f"assets/{path.name}" for path in [*SCRIPTS, STATIC / "console.css"]}
    for name in named:
        assert api.http.get(f"/{name}").status_code == 200, name
    again = api.http.get("/", headers={"If-None-Match": page.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_scripts_make_no_markup_of_texts_and_know_no_other_address(redis_url: str) -> None:
    """No module of the console can turn a text into elements or code, and none names another server."""
    assert len(SCRIPTS) > 1
    for path in SCRIPTS:
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", text), path
        assert not re.search(r"https?://|localStorage|document\.cookie", text), path
        for module in re.findall(r'from "\./([^"]+)"', text):
            assert (STATIC / module).exists()


def test_link_on_another_site_opens_the_page_and_nothing_else(api: ApiUnderTest) -> None:
    """A page holds no data, so a link on any site may lead to it; calls of another site are refused as ever."""
    from_elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert api.http.get("/", headers=from_elsewhere).status_code == 200
    assert_problem(api.http.get("/v1/jobs", headers=from_elsewhere), 403, "forbidden")
    assert_problem(api.http.get("/", headers={"Host": "rebound.example"}), 403, "forbidden")
    assert_problem(api.http.get("/", headers={"X-Forwarded-For": "203.0.113.7"}), 403, "forbidden")


def test_caller_is_told_who_it_is(start_api: Callable[..., ApiUnderTest]) -> None:
    """Without keys everybody may do everything; with keys each learns its tenant and its scopes, and strangers none."""
    free = start_api().http.get("/v1/caller").get_json()
    assert free == {"tenant": "default", "key_id": None, "scopes": list(SCOPES)}

    api = start_api(api_keys="ann:secret-a", metrics_key="of-the-monitor")
    ann = api.http.get("/v1/caller", headers={"Authorization": "Bearer secret-a"}).get_json()
    monitor = api.http.get("/v1/caller", headers={"Authorization": "Bearer of-the-monitor"}).get_json()
    assert (ann["tenant"], ann["scopes"]) == ("ann", list(SCOPES))
    assert (monitor["tenant"], monitor["scopes"]) == ("metrics", ["metrics:read"])
    assert_problem(api.http.get("/v1/caller"), 401, "unauthenticated")
    assert api.http.get("/").status_code == 200


def test_console_asks_for_a_key_and_shows_what_it_may_do(start_api: Callable[..., ApiUnderTest]) -> None:
    """A reader sees and cannot change; with another key a queue is paused, and a dead letter put back and dropped."""
    api = start_api(api_keys="ann:of-a-writer")
    _, reader = KeyStore(api.service.store.client).create("ann", ("jobs:read", "models:read"))
    as_ann = {"Authorization": "Bearer of-a-writer"}
    dead = api.post_rows(headers=as_ann, rows=[[5.1, 3.5, 1.4, 0.2]]).get_json()["id"]
    kill_by(api, dead)
    api.make_worker()
    with serve(api) as origin, open_browser(origin) as visitor:
        page = visitor.open()
        asked = page.get_by_role("dialog", name="Key")
        expect(asked).to_contain_text("This service asks for a key.")
        asked.get_by_label("Your API key").fill("nobody's")
        asked.get_by_role("button", name="Use it").click()
        expect(asked).to_contain_text("Send a valid key")
        asked.get_by_label("Your API key").fill(reader)
        page.keyboard.press("Enter")
        letters = page.get_by_role("region", name="Dead letters")
        expect(letters).to_contain_text("Scoring ended its worker")
        expect(page.get_by_role("button", name="Key of ann")).to_be_visible()
        expect(page.get_by_role("row", name="iris:1").first).to_be_visible()
        assert page.get_by_role("button", name=re.compile("Pause|Requeue|Drop")).count() == 0
        page.goto(f"{origin}/#/models/iris")
        expect(page.get_by_role("region", name="Score a row")).to_contain_text("lacks the scope jobs:write")

        page.get_by_role("button", name="Key of ann").click()
        asked.get_by_label("Your API key").fill("of-a-writer")
        asked.get_by_role("button", name="Use it").click()
        page.get_by_role("link", name="Overview").click()
        page.get_by_role("button", name="Pause iris:1").click()
        expect(page.get_by_role("button", name="Resume iris:1")).to_be_visible()
        assert api.service.store.read_queue("rows:iris:1").paused
        letters.get_by_role("button", name="Requeue").click()
        expect(page.locator("#said")).to_contain_text("queued again as")
        page.once("dialog", lambda dialog: dialog.accept())
        letters.get_by_role("button", name="Drop").click()
        expect(letters).to_be_hidden()
        listed = api.http.get("/v1/jobs", headers=as_ann).get_json()["jobs"]
        assert [(job["status"], job["retry_of"]) for job in listed] == [("queued", dead)]

        kept = page.evaluate("[Object.values(sessionStorage), Object.values(localStorage), document.cookie]")
        assert kept == [["of-a-writer"], [], ""]
        page.get_by_role("button", name="Key of ann").click()
        asked.get_by_role("button", name="Forget it").click()
        expect(asked).to_contain_text("This service asks for a key.")
        assert page.evaluate("sessionStorage.length") == 0


def test_jobs_are_filtered_by_keyboard(start_api: Callable[..., ApiUnderTest]) -> None:
    """A filter that is changed by a key keeps the focus, is in the address, and the list shows what fits."""
    api = start_api()
    rows, file = api.submit_rows(), api.submit_file(b"a,b\n1,2\n", "line")
    with serve(api) as origin, open_browser(origin) as visitor:
        page = visitor.open("/#/jobs")
        links = page.get_by_role("table", name="Jobs").locator("a.mono")
        expect(links).to_have_count(2)
        page.get_by_label("Kind").focus()
        page.keyboard.press("ArrowDown")
        expect(links).to_have_count(1)
        expect(links).to_have_attribute("href", f"#/jobs/{rows}")
        expect(page.get_by_label("Kind")).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(links).to_have_attribute("href", f"#/jobs/{file}")
        assert page.url == f"{origin}/#/jobs?kind=file"
        page.go_back()
        expect(links).to_have_attribute("href", f"#/jobs/{rows}")


def test_console_says_that_the_service_is_gone_and_goes_on_when_it_is_back(
    start_api: Callable[..., ApiUnderTest],
) -> None:
    """What was last read stays in view while nothing answers; it is read anew, unasked, when something does."""
    api = start_api()
    job_id = api.submit_rows()
    with serve(api) as origin, open_browser(origin) as visitor:
        page = visitor.open("/#/jobs")
        row = page.get_by_role("table", name="Jobs").get_by_role("row").last
        expect(row).to_contain_text("queued")
        visitor.context.set_offline(True)
        expect(page.locator("#notice")).to_contain_text("The service does not answer")
        expect(row).to_contain_text("queued")
        api.score()
        visitor.context.set_offline(False)
        expect(row).to_contain_text("succeeded")
        expect(page.locator("#notice")).to_be_empty()
        expect(row.get_by_role("link").first).to_have_attribute("href", f"#/jobs/{job_id}")
