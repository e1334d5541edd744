"""The processes of the whole service on one machine, as data: commands, environment, logs, order of stopping.

Nothing is imported of the service: its own commands are started. It must not know how they are kept alive.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from scorequeue.data_folder import DataFolder, Stores
from scorequeue.embedded_redis import find_binary, get_broker_socket, write_broker_config, write_config
from scorequeue.launch_options import LaunchOptions
from scorequeue.supervisor import ProcessSpec

#: Variable by which a later start recognises what this one left behind; its value is the data folder.
MARKER = "_SCOREQUEUE_UP"

#: For a server whose allocator is glibc's: its scripts make and drop small objects by the hundred, and with the usual
#: seven kept of each size the others come from all over its memory. A look costs half as much once there are many jobs
#: (docs/decisions/0031-the-cost-of-a-request.md).
_ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=65535:glibc.malloc.mxfast=160"}

#: A task says its queue (kind, model, version) in its arguments, and the jobs and rows it scored in its result.
_FLOWER_COLUMNS = "--tasks_columns=name,state,kwargs,result,received,runtime,worker"


def make_environment(folder: DataFolder, environ: Mapping[str, str], redis_url: str) -> dict[str, str]:
    """Make the environment of the processes: all in the data folder, unless the user says otherwise."""
    environment = dict(environ)
    # What Flower and the demo's training count must not mix with the counters of API and workers.
    environment["PROMETHEUS_MULTIPROC_DIR"] = str(folder.other_metrics)
    environment[MARKER] = str(folder.root)
    environment["SCOREQUEUE_REDIS_URL"] = redis_url
    stores = Stores.from_environ(environ)
    environment["SCOREQUEUE_FILE_STORE"] = stores.files or str(folder.files)
    environment["SCOREQUEUE_MODELS"] = stores.models or str(folder.models)
    if not stores.has_own_redis:
        # Its disk is this one: the API can refuse jobs before it is full.
        environment.setdefault("SCOREQUEUE_REDIS_FOLDER", str(folder.redis))
        broker = get_broker_socket(Path(redis_url.removeprefix("unix://")))
        environment.setdefault("SCOREQUEUE_BROKER_URL", f"unix://{broker}")
    search = [os.path.abspath(entry) for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    root = Path(__file__).resolve().parents[1]
    if root.name not in {"site-packages", "dist-packages"}:
        # Run from a checkout that is not installed: the processes must find it from any folder.
        search.insert(0, str(root))
    if search:
        environment["PYTHONPATH"] = os.pathsep.join(search)
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def list_service_processes(
    options: LaunchOptions, folder: DataFolder, environment: dict[str, str]
) -> list[ProcessSpec]:
    """List the processes beside Redis, in the order in which they are started."""
    # One folder of counters for API and workers, since what one of them counts the API shows.
    counted = {**environment, "PROMETHEUS_MULTIPROC_DIR": str(folder.metrics)}
    # Several processes score side by side: threads of each would only fight for the same processors.
    single = {**counted, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}
    celery = (sys.executable, "-m", "celery", "-A", "worker")

    def describe_worker(queue: str, niceness: int) -> ProcessSpec:
        command = (*celery, "worker", "-Q", queue, "-c", str(options.workers), "-n", f"{queue}@%h")
        return ProcessSpec(
            f"{queue} worker",
            (*command, "--loglevel", "INFO"),
            folder.logs / f"{queue}.log",
            single,
            folder.run,
            stop_stage=1,
            stop_seconds=20.0,
            niceness=niceness,
        )

    specs = [
        ProcessSpec(
            "API",
            (sys.executable, "-m", "granian", *list_api_options(options.host, options.port), "api:app"),
            folder.logs / "api.log",
            counted,
            folder.run,
            stop_stage=0,
            stop_seconds=12.0,
        ),
        describe_worker("rows", 0),
        # A large file must not slow the row jobs down on a machine with few processors.
        describe_worker("files", 5),
    ]
    if options.flower_port:
        specs.append(
            ProcessSpec(
                "Flower",
                # It asks nobody who they are, so: this machine only, and nothing that changes anything. Its API of
                # tasks is then harmless too, and is refused without the variable.
                (
                    *celery,
                    "flower",
                    "--address=127.0.0.1",
                    f"--port={options.flower_port}",
                    "--read_only",
                    _FLOWER_COLUMNS,
                ),
                folder.logs / "flower.log",
                {**environment, "FLOWER_UNAUTHENTICATED_API": "true"},
                folder.run,
                stop_stage=2,
                stop_seconds=5.0,
            )
        )
    return specs


def make_redis_process(folder: DataFolder, environment: dict[str, str], unix_socket: Path) -> ProcessSpec:
    """Write the embedded server's configuration and describe its process: started first, stopped last.

    Raises
    ------
    EmbeddedRedisError
        There is no server for this machine.
    """
    config = folder.run / "redis.conf"
    write_config(config, folder.redis, unix_socket)
    return ProcessSpec(
        "Redis",
        (str(find_binary()), str(config)),
        folder.logs / "redis.log",
        _ALLOCATOR | environment,
        folder.run,
        stop_stage=3,
        stop_seconds=30.0,
    )


def make_broker_process(folder: DataFolder, environment: dict[str, str], unix_socket: Path) -> ProcessSpec:
    """Write the configuration of the server for wake-ups and describe its process."""
    config = folder.run / "broker.conf"
    write_broker_config(config, folder.run, unix_socket)
    return ProcessSpec(
        "broker",
        (str(find_binary()), str(config)),
        folder.logs / "broker.log",
        environment,
        folder.run,
        stop_stage=3,
        stop_seconds=5.0,
    )


def make_training_process(folder: DataFolder, environment: dict[str, str]) -> ProcessSpec:
    """Describe the process that registers the demo models and ends; it skips those that are there."""
    models = environment["SCOREQUEUE_MODELS"]
    return ProcessSpec(
        "train-demo",
        (sys.executable, "-m", "worker", "train-demo", "--models", models),
        folder.logs / "train-demo.log",
        environment,
        folder.run,
    )


def list_api_options(host: str, port: int) -> list[str]:
    """Return what the API's server is started with."""
    options = {
        "--interface": "wsgi",
        "--host": host,
        "--port": port,
        # A proxy in front speaks it; without HTTP/2 there is less to attack, and a connection that says nothing ends.
        "--http": "1",
        "--http1-header-read-timeout": 10_000,
        "--http1-buffer-size": 64 * 1024,
        "--workers": 2,
        "--blocking-threads": 32,
        # Connections, not requests: several hundred that say nothing must leave room for those that do.
        "--backlog": 2048,
        "--backpressure": 1024,
        # A request that hangs must not hold up the end.
        "--workers-kill-timeout": 8,
        "--log-level": "info",
    }
    # Without respawning, one dead process of the API ends the others too.
    flags = ["--respawn-failed-workers", "--no-access-log", "--no-ws"]
    return [*(str(word) for pair in options.items() for word in pair), *flags]
