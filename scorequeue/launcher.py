"""The life of the service on one machine: what `scorequeue up` starts when, when it is ready, how it ends.

It must not know the commands (`scorequeue.service_processes`), nor how they are kept alive
(`scorequeue.supervisor`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from scorequeue.append_only import has_lost_manifest
from scorequeue.data_folder import DataFolder, DataFolderError, Stores
from scorequeue.embedded_redis import (
    Answer,
    EmbeddedRedisError,
    choose_socket,
    get_broker_socket,
    ping,
    remove_socket,
)
from scorequeue.launch_options import (
    LaunchError,
    LaunchOptions,
    check_exposure,
    check_installation,
    check_ports,
    resolve_host,
)
from scorequeue.processes import stop_survivors
from scorequeue.readiness import Lack, find_api_lack, find_flower_lack
from scorequeue.redis_log import RedisLog
from scorequeue.service_processes import (
    MARKER,
    list_service_processes,
    make_broker_process,
    make_environment,
    make_redis_process,
    make_training_process,
)
from scorequeue.stop_signals import StopSignals
from scorequeue.store_commands import read_api_command
from scorequeue.supervisor import CHECK_SECONDS, ProcessError, RestartPolicy, Supervisor, read_log_end, read_record

#: Seconds until everything must be ready.
READY_SECONDS = 300.0
#: Seconds that Redis may take to read its data back, which is progress: about 100 MB/s, so some hundred GB.
LOADING_SECONDS = 3600.0
#: Seconds for which a worker's heartbeat is good, unless the user has set it.
LEASE_SECONDS = 5.0
#: Seconds for training the demo models.
TRAINING_SECONDS = 300.0


@dataclass(frozen=True)
class Terminal:
    """Where lines for people go.

    Parameters
    ----------
    say : callable
        Takes a line about progress or trouble.
    announce : callable
        Takes what is ready, once it is; scripts wait for the one line that says so.
    """

    say: Callable[[str], None]
    announce: Callable[[LaunchOptions], None]


def run_service(
    options: LaunchOptions,
    environ: Mapping[str, str],
    terminal: Terminal,
    policy: RestartPolicy | None = None,
) -> None:
    """Run the service until a signal asks for its end; afterwards no process of it is alive.

    Call it in the main thread: it handles signals.

    Parameters
    ----------
    options : LaunchOptions
        What was asked for.
    environ : mapping
        The environment; its ``SCOREQUEUE_*`` variables reach the processes.
    terminal : Terminal
        Where lines for people go.
    policy : RestartPolicy, optional
        When to start again what died, and when to give up.

    Raises
    ------
    LaunchError
        It did not start, or could not be kept alive, or was stopped by force.
    """
    check_installation()
    options = replace(options, host=resolve_host(options.host))
    folder = DataFolder(options.data.resolve())
    try:
        folder.make()
        with folder.lock(), StopSignals() as signals:
            had_leftovers = stop_leftovers(folder, terminal.say)
            check_ports(options)
            folder.clear_metrics()
            folder.note_stores(Stores.from_environ(environ))
            launch = _Launch(options, folder, environ, terminal, signals, policy)
            launch.run(distrust_seconds=read_lease_seconds(environ) if had_leftovers else 0.0)
    except (DataFolderError, EmbeddedRedisError) as error:
        raise LaunchError(str(error), 2) from error


def stop_leftovers(folder: DataFolder, say: Callable[[str], None]) -> bool:
    """Stop what an earlier `up` on this folder left behind when it was killed; tell whether it was killed.

    Needs the folder's lock.
    """
    try:
        groups = read_record(_get_record(folder))
    except ValueError as error:
        say(f"{error}; processes of an earlier start may still run")
        groups = []
    if groups:
        say("the last `scorequeue up` was not stopped in order: stopping what it left behind")
    stop_survivors(groups, f"{MARKER}={folder.root}")
    return bool(groups)


def read_lease_seconds(environ: Mapping[str, str]) -> float:
    """Return for how many seconds a killed worker still looks alive; the workers refuse a wrong setting."""
    try:
        return float(environ.get("SCOREQUEUE_LEASE_SECONDS", LEASE_SECONDS))
    except ValueError:
        return LEASE_SECONDS


class _Launch:
    """One life of the service, from the first process to the last."""

    def __init__(
        self,
        options: LaunchOptions,
        folder: DataFolder,
        environ: Mapping[str, str],
        terminal: Terminal,
        signals: StopSignals,
        policy: RestartPolicy | None,
    ) -> None:
        self._options = options
        self._folder = folder
        self._terminal = terminal
        self._signals = signals
        self._supervisor = Supervisor(_get_record(folder), terminal.say, policy)
        given_url = environ.get("SCOREQUEUE_REDIS_URL", "").strip()
        self._socket = None if given_url else choose_socket(folder.root)
        self._environment = make_environment(folder, environ, given_url or f"unix://{self._socket}")
        log = folder.logs / "redis.log"
        self._redis_log = RedisLog(log, folder.redis, self._socket) if self._socket else None

    def run(self, distrust_seconds: float) -> None:
        """Start everything, watch it, stop it; heartbeats count only after ``distrust_seconds``.

        Until then they may be those of workers that were killed just now.
        """
        self._trusted_at = time.monotonic() + distrust_seconds
        try:
            self._start()
            while not self._signals.is_stopped():
                self._supervisor.check()
                self._say_repair()
                time.sleep(CHECK_SECONDS)
        except ProcessError as error:
            raise LaunchError(str(error), 1) from error
        finally:
            self._terminal.say("stopping")
            self._supervisor.stop(self._signals.is_hurried)
            if self._socket:
                remove_socket(self._socket, self._folder.root)
            self._terminal.say("stopped")
        if self._signals.is_hurried():
            raise LaunchError("stopped by force: what was running was cut off, and is taken up again later", 1)

    def _start(self) -> None:
        for step in (self._start_redis, self._check_exposure, self._train_demo, self._start_others):
            if not self._signals.is_stopped():
                step()
        if not self._signals.is_stopped():
            self._terminal.announce(self._options)

    def _start_redis(self) -> None:
        if not (unix_socket := self._socket):
            return
        if has_lost_manifest(self._folder.redis):
            raise LaunchError(
                f"{self._folder.redis} has data and no manifest: Redis would begin anew over it. Put the manifest "
                "back, or restore a backup into another folder (scorequeue restore)",
                1,
            )
        self._terminal.say("starting Redis")
        redis = make_redis_process(self._folder, self._environment, unix_socket)
        self._supervisor.start(redis, self._redis_log)
        self._supervisor.start(make_broker_process(self._folder, self._environment, get_broker_socket(unix_socket)))
        self._wait_until_ready(lambda: _find_redis_lack(unix_socket, {Answer.NOTHING}), READY_SECONDS)
        self._wait_until_ready(lambda: _find_redis_lack(unix_socket, {Answer.NOTHING, Answer.LOADING}), LOADING_SECONDS)
        self._say_repair()

    def _say_repair(self) -> None:
        if self._redis_log and (repair := self._redis_log.read_repair()):
            self._terminal.say(repair)

    def _check_exposure(self) -> None:
        check_exposure(self._options.host, self._environment, self._has_stored_key, self._terminal.say)

    def _has_stored_key(self) -> bool:
        listed = read_api_command(["keys", "list", "--json"], self._environment)
        if listed.returncode:
            raise LaunchError(
                listed.stderr.strip().removeprefix("error: "), listed.returncode if listed.returncode == 2 else 1
            )
        return bool(json.loads(listed.stdout))

    def _train_demo(self) -> None:
        if not self._options.demo:
            return
        self._terminal.say("registering the demo models")
        spec = make_training_process(self._folder, self._environment)
        self._supervisor.run(spec, TRAINING_SECONDS, self._signals.is_stopped)

    def _start_others(self) -> None:
        self._terminal.say("starting API, workers" + (" and Flower" if self._options.flower_port else ""))
        for spec in list_service_processes(self._options, self._folder, self._environment):
            self._supervisor.start(spec)
        self._wait_until_ready(self._find_lack, READY_SECONDS)

    def _find_lack(self) -> Lack | None:
        if time.monotonic() < self._trusted_at:
            return Lack("rows.log", "workers of an earlier start still look alive")
        lack = find_api_lack(self._options.host, self._options.port, self._options.workers)
        if lack is None and self._options.flower_port:
            return find_flower_lack(self._options.flower_port)
        return lack

    def _wait_until_ready(self, find_lack: Callable[[], Lack | None], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._signals.is_stopped() and (lack := find_lack()):
            self._supervisor.check()
            if time.monotonic() > deadline:
                log = read_log_end(self._folder.logs / lack.log)
                raise LaunchError(f"not ready after {timeout:g} s: {lack.reason}\n{log}", 1)
            time.sleep(CHECK_SECONDS)


def describe_ready(options: LaunchOptions) -> str:
    """Write the one line that says that everything is ready, and where."""
    parts = [f"API {_write_address(options)}"]
    if options.flower_port:
        parts.append(f"Flower http://127.0.0.1:{options.flower_port}")
    parts += [f"workers {options.workers}+{options.workers}", f"data {options.data}"]
    return "ready: " + "  ".join(parts)


def write_ready_json(options: LaunchOptions) -> str:
    """Write the same line for programs."""
    flower = f"http://127.0.0.1:{options.flower_port}" if options.flower_port else None
    ready = {"ready": True, "api": _write_address(options), "flower": flower, "workers": options.workers}
    return json.dumps({**ready, "data": str(options.data)})


def _write_address(options: LaunchOptions) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"http://{host}:{options.port}"


def _find_redis_lack(unix_socket: Path, lacking: set[Answer]) -> Lack | None:
    answer = ping(unix_socket)
    return Lack("redis.log", f"Redis on {unix_socket}: {answer.value}") if answer in lacking else None


def _get_record(folder: DataFolder) -> Path:
    return folder.run / "children.json"
