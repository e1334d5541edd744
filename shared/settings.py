"""The settings of a process: the only reader of ``SCOREQUEUE_*`` environment variables.

Every fault is gathered and raised at once, at the start: a service that runs with a misspelt setting is
worse than one that does not start.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

PREFIX = "SCOREQUEUE_"

#: Read by the command line, the client or the containers' health checks, not by the service's own processes.
FOREIGN_NAMES = frozenset({"SCOREQUEUE_URL", "SCOREQUEUE_API_KEY", "SCOREQUEUE_HEARTBEAT_FILE"})


_SECRETS = frozenset({"api_keys", "metrics_key"})
_HIDDEN = "…"
#: In an address: what stands before the host.
_PASSWORD = re.compile(r"(://)[^@/]*@")


class InvalidSettings(ValueError):
    """One or more ``SCOREQUEUE_*`` variables are wrong.

    Parameters
    ----------
    faults : list of str
        One sentence a fault, each naming its variable.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("wrong settings: " + "; ".join(faults))
        self.faults = faults


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that can be set, with units and the reason for each default.

    Each field ``x_y`` is read from ``SCOREQUEUE_X_Y``.
    """

    #: Address of Redis: ``redis://host:port/db``, ``rediss://…`` or ``unix:///path``.
    redis_url: str = "redis://127.0.0.1:6379/0"
    #: Address of the Redis that carries the wake-ups; empty: the same. They are only hints, so it need not keep
    #: anything: a Redis without persistence spares each of them the disk, and answers come sooner.
    broker_url: str = ""
    #: Uploads, chunk parts and results, shared by API and workers: a folder, or ``s3://bucket/prefix`` (where that is,
    #: and with which credentials, is said by the usual ``AWS_…`` variables).
    file_store: str = ".scorequeue/files"
    #: Folder of the registry: one folder a model, one below it a version.
    models: Path = Path(".scorequeue/models")
    #: Bytes that the models of one worker process may take together; what was not used for longest goes. 0: no limit.
    model_memory_bytes: int = 0
    #: Names of the models that a worker is there for, comma-separated; empty: all.
    worker_models: str = ""
    #: Minor versions of scikit-learn, ``1.7,1.8``, whose models are loaded beside those of the installed one.
    other_scikit_learn: str = ""
    #: Public key (PEM) whose signature a model version must have to be loaded; unset: none is asked for.
    model_signing_key: Path | None = None
    #: Where files may lie that a job names by ``input``, comma-separated, as ``s3://bucket/incoming/{tenant}/``. Empty:
    #: they must be uploaded.
    input_prefixes: str = ""
    #: ``tenant:secret`` or ``secret``, comma-separated: keys that deployments lay in, beside those that Redis keeps.
    #: Without any key, only callers on this machine are served.
    api_keys: str = ""
    #: A key that may read ``/metrics`` and nothing else; empty: none.
    metrics_key: str = ""
    #: Requests that a tenant may make, ``100/second`` or ``5000/10 minutes``; empty: any number.
    rate_limit: str = ""
    #: Rows that a tenant may submit, ``1000000/minute``; empty: any number.
    row_limit: str = ""
    #: Jobs, rows and bytes of input that a tenant may have in flight; 0: any number.
    max_tenant_jobs: int = 0
    max_tenant_rows: int = 0
    max_tenant_bytes: int = 0
    #: Networks that webhooks may call although they are not public, ``10.1.0.0/16,192.168.7.9/32``; empty: none.
    webhook_networks: str = ""
    #: Seconds that a webhook's delivery is kept when it was delivered, or given up.
    webhook_retention_seconds: int = 3 * 24 * 3600
    #: Model of ``/predict`` and the like when the caller names none.
    default_model: str = ""
    #: Bytes of a JSON body: 10,000 rows of a wide model fit, an abuse does not.
    max_body_bytes: int = 64 * 1024 * 1024
    #: Bytes of an uploaded file (after decompression).
    max_file_bytes: int = 50 * 1024**3
    #: Rows of a rows job; more belong into a file.
    max_job_rows: int = 10_000
    #: Bytes of a payload or result that stays in Redis; what is larger goes to the file store.
    inline_bytes: int = 256 * 1024
    #: Folder of Redis's data, if it is on this machine: jobs are refused before its disk is full. Empty: unknown.
    redis_folder: Path | None = None
    #: Free bytes below which nothing new is taken: Redis ends when it cannot write.
    min_free_bytes: int = 1024**3
    #: Rows that may wait in one model version's queue before submissions get 429.
    max_queue_rows: int = 1_000_000
    #: Rows of one model call. 512 rows of a forest take 10 ms; larger batches add little and wait longer.
    batch_rows: int = 512
    #: Bytes of payload in one claim, so that wide rows do not add up to an unbounded batch.
    batch_bytes: int = 32 * 1024 * 1024
    #: Most rows of one chunk of a file. Within it and ``chunk_bytes`` a chunk is half a second of the model's work.
    chunk_rows: int = 100_000
    #: Bytes of one chunk of a file.
    chunk_bytes: int = 4 * 1024 * 1024
    #: Chunks of one file that are offered at a time, so that files take turns.
    chunks_offered: int = 4
    #: Seconds a process may be silent before its claims are given to others.
    lease_seconds: float = 5.0
    #: Seconds that scoring one claim may take before its process is killed as hanging.
    task_seconds: int = 120
    #: Seconds a job may wait, by default: seven days.
    deadline_seconds: int = 7 * 24 * 3600
    #: Seconds that a finished rows job is kept: at 2,800 jobs/s an hour fills 10 GB of Redis.
    rows_retention_seconds: int = 3600
    #: Seconds that a finished file job and its files are kept.
    file_retention_seconds: int = 24 * 3600
    #: Requests of one API process that may wait at a time (``Prefer: wait``): half its threads.
    waiting_clients: int = 16
    #: Bodies that one API process reads at a time: a slow one holds a thread, and some must be left.
    receiving_clients: int = 12
    #: A body that brings fewer bytes a second over so many seconds is ended with its connection.
    stall_seconds: float = 10.0
    min_bytes_per_second: int = 1024
    #: Seconds a request may wait at most.
    max_wait_seconds: float = 60.0
    #: Port on which a worker host serves its own metrics; 0: it does not.
    worker_metrics_port: int = 0

    @property
    def worker_model_names(self) -> tuple[str, ...]:
        """The names in `worker_models`."""
        return tuple(filter(None, (name.strip() for name in self.worker_models.split(","))))

    def describe(self) -> dict[str, str | int | float]:
        """Return the settings by the names of their variables, secrets hidden."""
        shown: dict[str, str | int | float] = {}
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.name in _SECRETS and value:
                value = _HIDDEN
            elif isinstance(value, str):
                value = _PASSWORD.sub(rf"\g<1>{_HIDDEN}@", value)
            shown[f"{PREFIX}{field.name.upper()}"] = value if isinstance(value, int | float) else str(value or "")
        return shown

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings from the environment.

        Raises
        ------
        InvalidSettings
            A value cannot be read, is out of range, or a ``SCOREQUEUE_`` name is unknown.
        """
        environ = os.environ if environ is None else environ
        fields = {field.name: field for field in msgspec.structs.fields(cls)}
        values: dict[str, Any] = {}
        faults: list[str] = []
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or variable in FOREIGN_NAMES:
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in fields:
                faults.append(f"{variable} is not a setting{_suggest(name, list(fields))}")
                continue
            try:
                values[name] = _read_value(text, fields[name].type)
            except ValueError as error:
                faults.append(f"{variable}={text!r}: {error}")
        if faults:
            raise InvalidSettings(faults)
        return cls(**values)


def _read_value(text: str, kind: type) -> Any:
    if kind is str:
        return text
    if kind is not int and kind is not float:  # a folder, or none
        return Path(text)
    try:
        number = kind(text)
    except ValueError:
        raise ValueError(f"expected {'a whole number' if kind is int else 'a number'}") from None
    if number < 0:
        raise ValueError("expected a number that is not negative")
    return number


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {PREFIX}{near[0].upper()}?)" if near else ""
