"""Webhooks: told once a job has ended, signed, tried again, kept, and never sent where they may not go."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
import standardwebhooks

from api import outbound
from api.__main__ import main
from api.webhook_sender import WebhookSender
from shared.settings import InvalidSettings, Settings
from shared.webhooks import Attempt, DeliveryStore
from tests.api_under_test import IRIS_ROWS, ApiUnderTest, assert_problem, read_id
from tests.conftest import WaitUntil
from tests.receiver import Receiver
from tests.tools import require_tool

StartApi = Callable[..., ApiUnderTest]
KEYS = "ann:secret-a,bob:secret-b"
HERE = "127.0.0.0/8"
CSV = b"a,b\n1,2\n3,4\n"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver that says yes."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def api(start_api: StartApi) -> ApiUnderTest:
    """Give a front end that may call this machine."""
    return start_api(webhook_networks=HERE, api_keys=KEYS)


@pytest.fixture
def start_sender(api: ApiUnderTest) -> Iterator[Callable[..., WebhookSender]]:
    """Return a function that starts the sending threads, with waits of a test's size."""
    running: list[WebhookSender] = []

    def start(*retry_seconds: float) -> WebhookSender:
        running.append(WebhookSender(api.settings, api.service.deliveries, api.service.store, retry_seconds or (0.1,)))
        running[-1].start()
        return running[-1]

    yield start
    for sender in running:
        sender.stop()


def bearer(secret: str = "secret-a") -> dict[str, str]:
    """Give the header of a caller."""
    return {"Authorization": f"Bearer {secret}"}


def submit(api: ApiUnderTest, url: str, *events: str, secret: str = "secret-a", **members: Any) -> str:
    """Submit a job whose end is to be told; give its id."""
    webhook = {"url": url} | ({"events": events} if events else {})
    return read_id(api.post_rows(IRIS_ROWS, headers=bearer(secret), webhook=webhook, **members))


def list_deliveries(api: ApiUnderTest, secret: str = "secret-a", **query: Any) -> list[dict[str, Any]]:
    """List a tenant's deliveries."""
    response = api.http.get("/v1/webhook-deliveries", query_string=query, headers=bearer(secret))
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.get_json()["deliveries"]
    return found


def await_status(api: ApiUnderTest, wait_until: WaitUntil, status: str) -> dict[str, Any]:
    """Wait until the newest delivery has a status; give it."""
    wait_until(lambda: list_deliveries(api)[0]["status"] == status, 20, f"a delivery to be {status}")
    return list_deliveries(api)[0]


def test_end_of_a_job_is_told_signed(
    api: ApiUnderTest, receiver: Receiver, start_sender: Callable[..., WebhookSender], wait_until: WaitUntil
) -> None:
    """The receiver gets the job in short, and the library of Standard Webhooks believes the signature."""
    start_sender()
    job_id = submit(api, receiver.url, metadata={"campaign": "x"})
    assert receiver.told == []
    api.score()
    delivery = await_status(api, wait_until, "delivered")

    told = receiver.told[0]
    assert told.path == "/hook?token=t0ken"
    secret = api.service.deliveries.read_secret("ann").current
    document = standardwebhooks.Webhook(secret).verify(told.body, told.headers)
    assert document == json.loads(told.body)
    assert document["type"] == "job.succeeded"
    data = document["data"]
    assert (data["id"], data["status"], data["model"]) == (job_id, "succeeded", "iris:1")
    assert data["row_counts"] == {"total": 3, "succeeded": 3, "failed": 0, "pending": 0}
    assert data["metadata"] == {"campaign": "x"}
    assert (
        data["finished_at"]
        == document["timestamp"]
        == api.http.get(f"/v1/jobs/{job_id}", headers=bearer()).get_json()["finished_at"]
    )
    assert told.headers["webhook-id"] == delivery["id"]
    assert told.headers["content-type"] == "application/json"
    assert (delivery["job_id"], delivery["event"], delivery["url"]) == (job_id, "job.succeeded", receiver.url)
    assert [attempt["status"] for attempt in delivery["log"]] == [200]
    assert delivery["attempts"] == 1
    assert delivery["finished_at"] is not None
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(api.service.deliveries.read_secret("bob").current).verify(told.body, told.headers)


@pytest.mark.parametrize("how", ["canceled", "deleted", "expired", "failed", "succeeded", "empty file"])
def test_every_end_is_told(
    api: ApiUnderTest, receiver: Receiver, how: str, client: redis.Redis, wait_until: WaitUntil,
    start_sender: Callable[..., WebhookSender],
) -> None:  # fmt: skip
    """However a job ends, it is told once, as what it ended as; a deleted one by its id alone."""
    if how in ("succeeded", "empty file"):
        answer = api.post_file(CSV if how == "succeeded" else b"a,b\n", "line", bearer(), webhook_url=receiver.url)
        job_id = read_id(answer)
        api.score()
    else:
        job_id = submit(api, receiver.url, deadline_seconds=0.01 if how == "expired" else 60)
    if how == "canceled":
        api.http.post(f"/v1/jobs/{job_id}/cancel", headers=bearer())
    elif how == "deleted":
        api.http.delete(f"/v1/jobs/{job_id}", headers=bearer())
    elif how == "expired":
        wait_until(lambda: api.service.store.expire_jobs(10), 5, "the job to expire")
    elif how == "failed":
        api.service.store.fail(job_id, "model_error", "it cannot be")
    start_sender()
    await_status(api, wait_until, "delivered")

    told = json.loads(receiver.told[0].body)
    expected = {"deleted": "canceled", "empty file": "succeeded"}.get(how, how)
    assert (told["type"], told["data"]["id"]) == (f"job.{expected}", job_id)
    assert len(list_deliveries(api)) == 1
    if how == "deleted":
        assert told["data"] == {"id": job_id, "status": "canceled"}
    if how == "failed":
        assert told["data"]["error"] == {"code": "model_error", "detail": "it cannot be"}


def test_only_the_events_that_were_asked_for_are_told(api: ApiUnderTest, receiver: Receiver) -> None:
    """A webhook for failures hears nothing of a success."""
    submit(api, receiver.url, "job.failed", "job.expired")
    submit(api, receiver.url, "job.canceled", "job.succeeded")
    api.score()
    assert [delivery["event"] for delivery in list_deliveries(api)] == ["job.succeeded"]


def test_file_names_its_webhook_in_the_query(api: ApiUnderTest, receiver: Receiver) -> None:
    """``webhook_url`` and ``webhook_events`` of a query, or of a form, are what JSON nests."""
    options = {"webhook_url": receiver.url, "webhook_events": "job.failed,job.succeeded"}
    read_id(api.post_file(CSV, "line", bearer(), **options))
    form = {"model": "line", "webhook_url": receiver.url, "file": (io.BytesIO(CSV), "in.csv")}
    read_id(api.http.post("/v1/jobs", data=form, headers=bearer()))
    api.score()
    assert [delivery["url"] for delivery in list_deliveries(api)] == [receiver.url] * 2


def test_retry_of_a_job_tells_its_end_too(api: ApiUnderTest, receiver: Receiver) -> None:
    """The new job has the webhook of the old one."""
    read_id(api.post_file(b"a,b\n1,2\nx,4\n", "line", bearer(), webhook_url=receiver.url))
    api.score()
    first = list_deliveries(api)[0]
    assert first["event"] == "job.partially_succeeded"
    read_id(api.http.post(f"/v1/jobs/{first['job_id']}/retry", headers=bearer()))
    api.score()
    assert [delivery["event"] for delivery in list_deliveries(api)] == ["job.partially_succeeded"] * 2


def test_failed_attempt_is_repeated_under_the_same_id(
    api: ApiUnderTest, start_sender: Callable[..., WebhookSender], wait_until: WaitUntil
) -> None:
    """Until the receiver says yes: the same id and body, a time and signature of its own, and each in the log."""
    with Receiver(500, 302, 200, headers={"Location": "/elsewhere"}) as receiver:
        start_sender(0.05, 0.05, 0.05)
        submit(api, receiver.url)
        api.score()
        delivery = await_status(api, wait_until, "delivered")
        assert [attempt["status"] for attempt in delivery["log"]] == [500, 302, 200]
        assert len({(told.headers["webhook-id"], told.body, told.path) for told in receiver.told}) == 1
        assert len(receiver.told) == 3
    counts = api.service.deliveries.read_counts()
    assert counts == {"delivered": 1, "retried": 2, "failed": 0, "dropped": 0}
    scrape = api.http.get("/metrics", headers=bearer()).text
    assert 'scorequeue_webhook_deliveries_total{outcome="retried"} 2.0' in scrape
    assert 'scorequeue_webhook_deliveries_total{outcome="dropped"} 0.0' in scrape


def test_delivery_is_given_up_after_its_last_attempt_and_can_be_replayed(
    api: ApiUnderTest, start_sender: Callable[..., WebhookSender], wait_until: WaitUntil, client: redis.Redis
) -> None:
    """It is failed, kept for a time, and delivered when somebody asks for it again."""
    with Receiver(500) as receiver:
        start_sender(0.05, 0.05)
        submit(api, receiver.url)
        api.score()
        delivery = await_status(api, wait_until, "failed")
        assert delivery["attempts"] == len(receiver.told) == 3
        assert delivery["next_attempt_at"] is None
        assert 0 < client.pttl(f"sq:delivery:{delivery['id']}") <= 3 * 24 * 3600 * 1000  # type: ignore[operator]

        receiver.answers = [200]
        replay = f"/v1/webhook-deliveries/{delivery['id']}/replay"
        answer = api.http.post(replay, headers=bearer())
        assert (answer.status_code, answer.get_json()["status"]) == (202, "pending")
        delivery = await_status(api, wait_until, "delivered")
        assert delivery["attempts"] == 4
        assert api.http.post(replay, headers=bearer()).status_code == 202
        wait_until(lambda: len(receiver.told) == 5, 10, "the replay of what was delivered")
        assert len({told.body for told in receiver.told}) == 1
        await_status(api, wait_until, "delivered")


def test_receiver_that_is_gone_is_not_asked_again(
    api: ApiUnderTest, start_sender: Callable[..., WebhookSender], wait_until: WaitUntil
) -> None:
    """410 means that nobody wants it any more."""
    with Receiver(410) as receiver:
        start_sender(0.05, 0.05)
        submit(api, receiver.url)
        api.score()
        assert await_status(api, wait_until, "failed")["attempts"] == 1


def test_receiver_may_say_when_to_come_back(api: ApiUnderTest) -> None:
    """A Retry-After that is longer than the wait is heeded."""
    with Receiver(503, headers={"Retry-After": "120"}) as receiver:
        submit(api, receiver.url)
        api.score()
        send_due(api)
    delivery = list_deliveries(api)[0]
    until = datetime.fromisoformat(delivery["next_attempt_at"]) - datetime.now(UTC)
    assert 100 < until.total_seconds() <= 120


def send_due(api: ApiUnderTest, *retry_seconds: float) -> int:
    """Send what is due, in this thread."""
    sender = WebhookSender(api.settings, api.service.deliveries, api.service.store, retry_seconds or (5.0,))
    claimed = api.service.deliveries.claim(10, most_of_one=10, lease_seconds=60)
    for delivery in claimed:
        sender.send(delivery)
    return len(claimed)


@pytest.mark.parametrize("how", ["refused", "reset", "silent name"])
def test_receiver_that_cannot_be_reached_is_tried_again(api: ApiUnderTest, how: str) -> None:
    """What went wrong is in the log in a few words, without anything of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if how == "refused":
            server.close()
        else:
            thread = threading.Thread(target=lambda: server.accept()[0].close(), daemon=True)
            thread.start()
        host = "no-such-host.invalid" if how == "silent name" else "127.0.0.1"
        submit(api, f"http://{host}:{port}/")
        api.score()
        assert send_due(api) == 1
        if how == "silent name":
            socket.create_connection(("127.0.0.1", port)).close()
    delivery = list_deliveries(api)[0]
    assert delivery["status"] == "pending"
    [attempt] = delivery["log"]
    assert attempt["status"] is None
    expected = {"refused": "connection refused", "reset": "the connection was cut off"}
    assert attempt["error"] == expected.get(how, "the name has no address")


def test_delivery_of_a_process_that_died_is_sent_by_another(
    api: ApiUnderTest, receiver: Receiver, wait_until: WaitUntil, start_sender: Callable[..., WebhookSender]
) -> None:
    """What was taken and not finished is taken again when its lease is over, and the late outcome is not noted."""
    submit(api, receiver.url)
    api.score()
    [lost] = api.service.deliveries.claim(10, most_of_one=10, lease_seconds=0.2)
    assert api.service.deliveries.claim(10, most_of_one=10, lease_seconds=60) == []
    start_sender()
    await_status(api, wait_until, "delivered")
    assert len(receiver.told) == 1
    late = api.service.deliveries.finish(lost, Attempt(0, 0.0, 500), status="failed", body=b"", retention_seconds=60)
    assert late is False
    assert list_deliveries(api)[0]["status"] == "delivered"


def test_deliveries_wait_for_a_sender(api: ApiUnderTest, receiver: Receiver, start_api: StartApi) -> None:
    """What no process could send, because none ran, is sent by the next: it is all in Redis."""
    submit(api, receiver.url)
    api.score()
    api.close()
    later = start_api(webhook_networks=HERE, api_keys=KEYS)
    assert send_due(later) == 1
    assert len(receiver.told) == 1


def test_slow_receivers_of_one_tenant_do_not_hold_up_anothers(
    api: ApiUnderTest, receiver: Receiver, start_sender: Callable[..., WebhookSender], wait_until: WaitUntil
) -> None:
    """A tenant whose receivers hang holds half of the callers, and the others serve the rest."""
    with Receiver() as hanging:
        hanging.held.clear()
        for _ in range(12):
            submit(api, hanging.url)
        for _ in range(4):
            submit(api, receiver.url, secret="secret-b")
        api.score()
        start_sender()
        wait_until(lambda: len(receiver.told) == 4, 15, "the other tenant's deliveries")
        assert len(hanging.told) == 3
        hanging.held.set()
        wait_until(lambda: len(list_deliveries(api, status="delivered")) == 12, 20, "the slow ones")


def test_deliveries_are_the_tenants_own(api: ApiUnderTest, receiver: Receiver) -> None:
    """Another tenant's delivery cannot be told from one that never was."""
    submit(api, receiver.url)
    api.score()
    [delivery] = list_deliveries(api)
    path = f"/v1/webhook-deliveries/{delivery['id']}"
    assert list_deliveries(api, "secret-b") == []
    assert_problem(api.http.get(path, headers=bearer("secret-b")), 404, "not_found")
    assert_problem(api.http.post(f"{path}/replay", headers=bearer("secret-b")), 404, "not_found")
    assert api.http.get(path, headers=bearer()).get_json() == delivery
    for strange in ("whd_1", "..%2f..", "x" * 500, "whd_%00"):
        assert_problem(api.http.get(f"/v1/webhook-deliveries/{strange}", headers=bearer()), 404, "not_found")


def test_deliveries_are_listed_in_pages(api: ApiUnderTest, receiver: Receiver) -> None:
    """Newest first, filtered by status and job, with a link to the next page."""
    ids = [submit(api, receiver.url) for _ in range(5)]
    api.score()
    first = api.http.get("/v1/webhook-deliveries?limit=2", headers=bearer())
    assert 'rel="next"' in first.headers["Link"]
    seen, link = [], "/v1/webhook-deliveries?limit=2"
    while link:
        page = api.http.get(link, headers=bearer())
        seen += page.get_json()["deliveries"]
        link = page.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert sorted(delivery["job_id"] for delivery in seen) == sorted(ids)
    assert [delivery["id"] for delivery in seen] == sorted((delivery["id"] for delivery in seen), reverse=True)
    assert [delivery["job_id"] for delivery in list_deliveries(api, job=ids[3])] == [ids[3]]
    assert list_deliveries(api, status="failed") == []
    assert_problem(api.http.get("/v1/webhook-deliveries?status=lost", headers=bearer()), 400, "invalid_parameter")


def test_deliveries_are_forgotten_in_time(
    start_api: StartApi, receiver: Receiver, client: redis.Redis, wait_until: WaitUntil
) -> None:
    """A delivery that ended is gone after its retention, and its name with the next cleaning."""
    api = start_api(webhook_networks=HERE, webhook_retention_seconds=0, api_keys=KEYS)
    submit(api, receiver.url)
    api.score()
    send_due(api)
    wait_until(lambda: not list(client.scan_iter("sq:delivery:*")), 5, "the delivery to be gone")
    assert list_deliveries(api) == []
    api.service.deliveries.trim()
    assert list(client.scan_iter("sq:deliveries:*")) == []


def test_tenant_keeps_only_so_many_deliveries(api: ApiUnderTest, client: redis.Redis) -> None:
    """Past ten thousand the oldest is dropped, waiting or not, and counted: a dead receiver cannot fill Redis."""
    for number in range(10_000):
        client.zadd("sq:deliveries:ann", {f"whd_{number:013d}_x": 0})
    client.hset("sq:delivery:whd_0000000000000_x", "t", "ann")
    client.zadd("sq:due:ann", {"whd_0000000000000_x": 0})
    submit(api, "http://127.0.0.1:9/")
    api.score()
    assert client.zcard("sq:deliveries:ann") == 10_000
    assert not client.exists("sq:delivery:whd_0000000000000_x")
    assert api.service.deliveries.read_counts()["dropped"] == 1
    api.service.deliveries.trim()
    assert client.zcard("sq:deliveries:ann") == 1


WRONG_WEBHOOKS: list[Any] = [
    "https://example.org/",
    {},
    {"url": 7},
    {"url": "https://example.org/", "events": []},
    {"url": "https://example.org/", "events": ["job.began"]},
    {"url": "https://example.org/", "secret": "x"},
]
WRONG_ADDRESSES = [
    "", "example.org/hook", "ftp://example.org/", "file:///etc/passwd", "gopher://127.0.0.1:6379/_x", "https://",
    "https:///path", "https://user:word@example.org/", "https://example.org:99999/", "https://example.org/#part",
    "https://example.org/a b", "https://example.org/\r\nX-Injected: 1", "https://ex\u00e4mple.org/",
    "https://example.org\\@127.0.0.1/", "https://[::1/", "https://example.org/" + "x" * 3000,
    # Not public:
    "https://127.0.0.1/", "https://[::1]/", "https://10.0.0.7/", "https://192.168.1.1/", "https://172.16.0.1/",
    "https://169.254.169.254/latest/meta-data/", "https://0.0.0.0/", "https://100.64.0.1/", "https://[fe80::1]/",
    "https://[fd00::1]/", "https://224.0.0.1/", "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/", "https://[::127.0.0.1]/", "https://255.255.255.255/",
    # Public, but not secret:
    "http://example.org/", "http://93.184.216.34/",
]  # fmt: skip


@pytest.mark.parametrize("webhook", WRONG_WEBHOOKS, ids=str)
def test_wrong_webhook_is_told_at_submission(start_api: StartApi, webhook: Any) -> None:
    """A member that is none, or of the wrong type, is a 400 that says where."""
    problem = assert_problem(start_api().post_rows(IRIS_ROWS, webhook=webhook), 400, "invalid_parameter")
    assert "webhook" in problem["detail"]


@pytest.mark.parametrize("address", WRONG_ADDRESSES, ids=lambda address: address[:60] or "empty")
def test_address_that_may_not_be_called_is_told_at_submission(start_api: StartApi, address: str) -> None:
    """An address that is none, not public, or not secret makes no job, of rows or of a file."""
    api = start_api()
    assert_problem(api.post_rows(IRIS_ROWS, webhook={"url": address}), 400, "invalid_parameter")
    assert_problem(api.post_file(CSV, "line", webhook_url=address), 400, "invalid_parameter")
    assert api.http.get("/v1/jobs").get_json()["jobs"] == []
    assert api.list_kept_files() == []


@pytest.mark.parametrize(
    "found",
    [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::ffff:10.0.0.1"], ["fe80::1%1"], ["64:ff9b::a00:1"]],
    ids=" ".join,
)
def test_name_of_a_private_address_is_refused_when_it_is_called(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    """A name is resolved when it is called: if any of its addresses is not public nothing is sent, and it is over."""
    api = start_api(api_keys=KEYS)
    submit(api, "https://hook.example/")
    api.score()
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "hook.example":
            return real(host, port, *rest, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it was called"))
    assert send_due(api) == 1
    delivery = list_deliveries(api)[0]
    assert (delivery["status"], delivery["attempts"]) == ("failed", 1)
    assert "not public" in delivery["log"][0]["error"]
    assert not any(address in json.dumps(delivery) for address in found)


@pytest.fixture
def tls_receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Give a receiver that speaks TLS as ``hook.example``, whose certificate this process trusts."""
    subprocess.run(
        [require_tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hook",
         "-addext", "subjectAltName=DNS:hook.example", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with Receiver() as receiver:
        receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
        yield receiver


def test_connection_is_made_to_the_address_that_was_checked(
    tls_receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is asked for once, and its certificate is checked for the name, not for the address."""
    port, real, asked = tls_receiver.server.server_port, socket.getaddrinfo, []

    def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if not str(host).startswith("127."):
            asked.append(host)
            host = "127.0.0.1"
        return real(host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    networks = outbound.parse_networks(HERE)
    assert outbound.post(f"https://hook.example:{port}/x?y=1", b"{}", {}, networks).status == 200
    assert asked == ["hook.example"]
    told = tls_receiver.told[0]
    assert (told.path, told.headers["host"]) == ("/x?y=1", f"hook.example:{port}")
    with pytest.raises(ssl.SSLCertVerificationError):
        outbound.post(f"https://other.example:{port}/", b"{}", {}, networks)
    assert len(tls_receiver.told) == 1


def test_receiver_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that sends a byte now and then ends with the time for all of it, not with that between two bytes."""
    monkeypatch.setattr(outbound, "_WHOLE_SECONDS", 0.5)
    stop = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            while not stop.wait(0.05):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises((OSError, outbound.http.client.HTTPException)):
            outbound.post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {}, outbound.parse_networks(HERE))
        assert time.monotonic() - began < 5
        stop.set()
        thread.join(5)


def test_secret_is_shown_to_operators_and_changed_without_a_gap(
    api: ApiUnderTest, receiver: Receiver, redis_url: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """After a rotation both secrets sign, so that receivers change over when they can; in a day only the new one."""
    monkeypatch.setenv("SCOREQUEUE_REDIS_URL", redis_url)

    def show(*words: str) -> str:
        assert main(["webhooks", "secret", "--tenant", "ann", *words]) == 0
        return capsys.readouterr().out.strip()

    old = show()
    assert show() == old
    assert old.startswith("whsec_")
    new = show("--rotate")
    assert new != old
    submit(api, receiver.url)
    api.score()
    send_due(api)
    told = receiver.told[0]
    for secret in (old, new):
        standardwebhooks.Webhook(secret).verify(told.body, told.headers)
    assert api.service.deliveries.read_secret("ann").list_valid(time.time() + 25 * 3600) == [new]


def test_wrong_network_is_an_error_at_the_start(start_api: StartApi) -> None:
    """A network that cannot be read stops the start."""
    with pytest.raises(InvalidSettings, match="SCOREQUEUE_WEBHOOK_NETWORKS"):
        start_api(webhook_networks="10.0.0.0/8, office")


def test_settings_have_no_network_by_default() -> None:
    """Nothing but public addresses is called unless somebody says so."""
    assert outbound.parse_networks(Settings().webhook_networks) == ()


def test_store_survives_a_restart_of_everything(redis_url: str, client: redis.Redis, store: object) -> None:
    """The secret is the same for every process, and is made once."""
    secrets = set()
    for _ in range(3):
        with redis.Redis.from_url(redis_url) as own:
            secrets.add(DeliveryStore(own).read_secret("ann").current)
    assert secrets == {DeliveryStore(client).read_secret("ann").current}
