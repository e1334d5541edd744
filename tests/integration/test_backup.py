"""The embedded Redis saved while it is written to, and what is said of files that were cut off or damaged."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from scorequeue.append_only import FOLDER, MANIFEST, find_last_file, list_files
from scorequeue.data_folder import DataFolder
from scorequeue.embedded_redis import Answer, choose_socket, ping, remove_socket
from scorequeue.redis_log import RedisLog
from scorequeue.service_processes import make_redis_process
from scorequeue.snapshot import restore_data, save_data
from scorequeue.supervisor import ProcessError, RestartPolicy, Supervisor
from shared.connection import connect
from shared.jobs import Document
from shared.store import JobStore
from shared.submissions import Submission
from tests.conftest import WaitUntil

POLICY = RestartPolicy(first_delay=0.5, longest_delay=0.5)


class Server:
    """The embedded Redis as `scorequeue up` runs it: supervised, with an eye on its log."""

    def __init__(self, data: Path, wait_until: WaitUntil) -> None:
        self.folder = DataFolder(data)
        self.folder.make()
        self.said: list[str] = []
        self.socket = choose_socket(self.folder.root)
        self.log = RedisLog(self.folder.logs / "redis.log", self.folder.redis, self.socket)
        self._wait_until = wait_until
        self._supervisor = Supervisor(self.folder.run / "children.json", self.said.append, POLICY)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._supervisor.start(make_redis_process(self.folder, dict(os.environ), self.socket), self.log)
        self._wait_until(self.is_ready, 30, "the server to answer")

    def is_ready(self) -> bool:
        """Look after it; tell whether it answers."""
        self._supervisor.check()
        return ping(self.socket) is Answer.READY

    def has_restarted(self) -> bool:
        """Look after it; tell whether it answers after a restart."""
        return self.is_ready() and bool(self.said)

    def kill(self) -> None:
        """End it as a crash does; it is started again by the next look after it."""
        with self.connect() as client:
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        self._wait_until(lambda: ping(self.socket) is Answer.NOTHING, 10, "the end of the server")

    def stop(self) -> None:
        """End it for good."""
        self._supervisor.stop()
        remove_socket(self.socket, self.folder.root)

    def connect(self) -> redis.Redis:
        """Connect to it."""
        return connect(f"unix://{self.socket}", timeout_seconds=10.0)

    def measure(self) -> int:
        """Return the length of the last file."""
        path = find_last_file(self.folder.redis)
        assert path
        return path.stat().st_size

    def cut(self, count: int) -> int:
        """Cut bytes off the last file while it is down; return its length then."""
        path = find_last_file(self.folder.redis)
        assert path
        os.truncate(path, self.measure() - count)
        return self.measure()


StartServer = Callable[..., Server]


@pytest.fixture
def make_server(tmp_path: Path, wait_until: WaitUntil) -> Iterator[StartServer]:
    """Return a function that gives a server on a data folder of the test's, not started."""
    servers: list[Server] = []

    def make(name: str = "data") -> Server:
        servers.append(Server(tmp_path / name, wait_until))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def server(make_server: StartServer) -> Server:
    """Give a server that runs."""
    server = make_server()
    server.start()
    return server


class Writer:
    """Writes numbered keys one after another in a thread, and counts those that were acknowledged."""

    def __init__(self, server: Server) -> None:
        self._client = server.connect()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged = 0

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(30)
        self._client.close()

    def _run(self) -> None:
        # Two keys in a transaction, and not small: a copy may end within, but must never show one without the other.
        write = self._client.register_script(
            "redis.call('SET', 'a' .. ARGV[1], ARGV[2]) redis.call('SET', 'b' .. ARGV[1], ARGV[2])"
        )
        while not self._stopped.is_set():
            write(args=[self.acknowledged + 1, "x" * 700])
            self.acknowledged += 1


def check_restored(make_server: StartServer, archive: Path, at_least: int) -> None:
    """Start a server on a restored archive: it has every pair up to a number that is high enough, and none beyond."""
    restore_data(archive, archive.with_suffix(".data"))
    restored = make_server(f"{archive.stem}.data")
    restored.start()
    with restored.connect() as client:
        pairs = client.dbsize() // 2
        assert pairs >= at_least
        assert client.exists(*(f"{kind}{number}" for kind in "ab" for number in range(1, pairs + 1))) == 2 * pairs
    restored.stop()


def test_backup_has_all_that_was_acknowledged_before_it(
    server: Server, make_server: StartServer, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Under a stream of writes each backup restores to everything that was answered before it began."""
    counts: list[int] = []
    with Writer(server) as writer:
        for number in range(3):
            wait_until(lambda: writer.acknowledged > 100 + sum(counts), 30, "more writes")
            counts.append(writer.acknowledged)
            save_data(server.folder.root, tmp_path / f"{number}.tar", {})

    for number, count in enumerate(counts):
        check_restored(make_server, tmp_path / f"{number}.tar", count)


def test_backup_during_a_rewrite_is_whole(
    server: Server, make_server: StartServer, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """While Redis rewrites its file, and commands go to the next one, a backup takes both; the rewrite goes on."""
    with server.connect() as client, Writer(server) as writer:
        wait_until(lambda: writer.acknowledged > 200, 30, "something to rewrite")
        client.config_set("rdb-key-save-delay", 5000)
        client.bgrewriteaof()
        wait_until(lambda: client.info("persistence")["aof_rewrite_in_progress"], 10, "the rewrite")
        count = writer.acknowledged
        wait_until(lambda: writer.acknowledged > count + 10, 30, "writes during the rewrite")
        count = writer.acknowledged
        save_data(server.folder.root, tmp_path / "rewrite.tar", {})
        assert client.info("persistence")["aof_rewrite_in_progress"]
        client.config_set("rdb-key-save-delay", 0)

    with tarfile.open(tmp_path / "rewrite.tar") as tar:
        manifest = tar.extractfile(f"redis/{FOLDER}/{MANIFEST}")
        assert manifest
        assert len(list_files(manifest.read())) == 3
    check_restored(make_server, tmp_path / "rewrite.tar", count)


def test_backups_between_rewrites_are_whole(
    server: Server, make_server: StartServer, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """However often Redis replaces its files, a backup is of files that belong together."""
    counts: list[int] = []
    with server.connect() as client, Writer(server) as writer:
        wait_until(lambda: writer.acknowledged > 50, 30, "something to rewrite")
        rewrites = client.info("persistence")["aof_rewrites"]
        for number in range(6):
            client.bgrewriteaof()
            counts.append(writer.acknowledged)
            save_data(server.folder.root, tmp_path / f"{number}.tar", {})
            wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], 30, "the rewrite's end")
        assert client.info("persistence")["aof_rewrites"] >= rewrites + 6

    for number in (0, 3, 5):
        check_restored(make_server, tmp_path / f"{number}.tar", counts[number])


def test_killed_server_can_be_saved(server: Server, make_server: StartServer, tmp_path: Path) -> None:
    """A folder whose server was killed is saved as it is, cut-off last command or not, and starts when restored."""
    with server.connect() as client:
        client.mset({"a1": "x", "b1": "x"})
        client.mset({"a2": "x", "b2": "x"})
    server.kill()
    server.cut(3)

    save_data(server.folder.root, tmp_path / "killed.tar", {})

    check_restored(make_server, tmp_path / "killed.tar", 1)


# What is said at a start


def submit(server: Server) -> str:
    """Write a job down as the API does, with an idempotency key; return its id."""
    with server.connect() as client:
        store = JobStore(client)
        job_id = store.make_id("t")
        submission = Submission(
            id=job_id, kind="rows", tenant="t", queue="rows:iris:1", priority="normal", rows=1, payload=b"payload",
            deadline_seconds=600, retention_seconds=600, document=Document(model="iris", version=1, model_sha256=""),
            idempotency_key=job_id[-9:], fingerprint="f" * 64,
        )  # fmt: skip
        store.submit(submission, max_queue_rows=100)
        return job_id


def test_whole_files_need_no_word(server: Server, wait_until: WaitUntil) -> None:
    """After a kill that cut nothing off, nothing is said of the files, and everything is there."""
    job_id = submit(server)
    server.kill()
    wait_until(server.has_restarted, 20, "the restart")

    assert server.log.read_repair() is None
    assert has_job(server, job_id)


def test_cut_that_took_no_job_is_said_to_cost_nothing(server: Server, wait_until: WaitUntil) -> None:
    """A claim that was cut off is dropped: one line tells how much, and that no job is affected, also not its own."""
    job_id = submit(server)
    with server.connect() as client:
        store = JobStore(client)
        store.beat("owner", lease_seconds=5, says={})
        store.claim("rows:iris:1", "owner", lease_seconds=5, max_rows=10, max_bytes=10_000)
    server.kill()
    cut = server.cut(10)
    wait_until(server.has_restarted, 20, "the restart")

    said = server.log.read_repair()

    assert said
    path = find_last_file(server.folder.redis)
    found = re.fullmatch(
        r"Redis's append-only file ended in an unfinished command and was repaired: (.*), ([\d,]+) bytes dropped from "
        r"byte ([\d,]+) on\. No submission was in them; a job that was answered with 202 is not affected",
        said,
    )
    assert found
    dropped, offset = int(found[2].replace(",", "")), int(found[3].replace(",", ""))
    assert Path(found[1]) == path
    assert offset + dropped == cut
    assert server.log.read_repair() is None
    assert has_job(server, job_id)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.99])
def test_cut_that_took_a_submission_names_the_job(server: Server, wait_until: WaitUntil, share: float) -> None:
    """If a submission was cut, wherever within, the line names its job and says when it is lost; others are there."""
    kept = submit(server)
    before = server.measure()
    lost = submit(server)
    size = server.measure() - before
    server.kill()
    server.cut(int(size * (1 - share)))
    wait_until(server.has_restarted, 20, "the restart")

    said = server.log.read_repair()

    assert said
    assert f"The submission of {lost} was in them." in said
    assert "it is lost: submit it again" in said
    assert has_job(server, kept)
    assert not has_job(server, lost)


def has_job(server: Server, job_id: str) -> bool:
    """Tell whether a job is written down."""
    with server.connect() as client:
        return JobStore(client).read_job(job_id) is not None


def test_cut_at_the_first_start_is_noticed(server: Server, make_server: StartServer) -> None:
    """The start of a service on files that were cut while it was down is told as well."""
    lost = submit(server)
    server.stop()
    server.cut(10)

    again = make_server()
    again.start()

    said = again.log.read_repair()
    assert said
    assert lost in said


def damage_middle(folder: Path, last: Path) -> Path:
    """Overwrite a command's frame."""
    content = last.read_bytes()
    last.write_bytes(content.replace(b"\r\n*", b"\r\nX", 1))
    return last


def remove_last(folder: Path, last: Path) -> Path:
    """Remove the file of commands."""
    last.unlink()
    return last


def damage_base(folder: Path, last: Path) -> Path:
    """Overwrite the beginning of the base."""
    base = next(folder.glob("*.base.rdb"))
    base.write_bytes(b"XXXXXXXXX" + base.read_bytes()[9:])
    return base


def damage_manifest(folder: Path, last: Path) -> Path:
    """Replace the manifest."""
    (folder / MANIFEST).write_text("nonsense\n")
    return folder / MANIFEST


def append_zeros(folder: Path, last: Path) -> Path:
    """Append what some file systems leave behind when the power fails."""
    with last.open("ab") as file:
        file.write(b"\0" * 100)
    return last


def cut_base(folder: Path, last: Path) -> Path:
    """Cut the base off; the server does not name it then."""
    base = next(folder.glob("*.base.rdb"))
    os.truncate(base, base.stat().st_size - 10)
    return folder


@pytest.mark.parametrize("damage", [damage_middle, append_zeros, remove_last, damage_base, cut_base, damage_manifest])
def test_damaged_files_end_the_start_at_once(
    server: Server, make_server: StartServer, damage: Callable[[Path, Path], Path]
) -> None:
    """A server that cannot read its data back is not started again and again: the file is named, and what to do."""
    for _ in range(5):
        submit(server)
    server.stop()
    last = find_last_file(server.folder.redis)
    assert last
    damaged = damage(server.folder.redis / FOLDER, last)

    again = make_server()
    with pytest.raises(ProcessError) as caught:
        again.start()

    assert again.said == []
    assert f"cannot read its data back: {damaged} is missing or damaged. Restore a backup" in str(caught.value)
    assert "last lines of" in str(caught.value)


def test_advised_repair_keeps_what_stands_before_the_damage(server: Server, make_server: StartServer) -> None:
    """The command that is advised for a damaged file of commands works as it is written."""
    kept = [submit(server) for _ in range(5)]
    server.stop()
    last = find_last_file(server.folder.redis)
    assert last
    append_zeros(server.folder.redis / FOLDER, last)
    with pytest.raises(ProcessError) as caught:
        make_server().start()

    advised = re.search(r"in bash: (.*)$", caught.value.reason)
    assert advised
    subprocess.run(["bash", "-c", advised[1]], input=b"y\n", check=True, stdout=subprocess.DEVNULL)
    again = make_server()
    again.start()

    assert all(has_job(again, job_id) for job_id in kept)
