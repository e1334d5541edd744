"""An S3 server for tests, in a process of its own: it can be stopped and killed like any other."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from tests.conftest import WaitUntil
from tests.tools import pick_free_port

NAME = "scorequeue-tests"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def serve_bucket(folder: Path, wait_until: WaitUntil) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """Serve one empty bucket; give the server's process, and the environment by which it is found."""
    port = pick_free_port()
    url = f"http://127.0.0.1:{port}"
    environment = CREDENTIALS | {"AWS_ENDPOINT_URL": url}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "moto.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | CREDENTIALS)
        try:
            wait_until(lambda: _answers(url), 30, "the S3 server to answer")
            client = boto3.client(
                "s3",
                endpoint_url=url,
                region_name="us-east-1",
                aws_access_key_id="tests",
                aws_secret_access_key="tests",
            )
            client.create_bucket(Bucket=NAME)
            yield server, environment
        finally:
            server.kill()
            server.wait()


def connect_bucket(environment: dict[str, str]) -> Any:
    """Return a client of the server, for what a user does to a bucket."""
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
