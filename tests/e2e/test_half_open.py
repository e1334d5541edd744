"""Connections that send half a request, or nothing, do not stop the service."""

from __future__ import annotations

import contextlib
import resource
import socket
from urllib.parse import urlsplit

from scorequeue import Client
from tests.e2e.conftest import RunningService

CONNECTIONS = 600
HALVES = (b"", b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Ty")


def test_half_sent_requests_do_not_stop_the_service(service: RunningService) -> None:
    """With 600 connections that send nothing more, jobs are taken and scored as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    address = urlsplit(service.url)
    with contextlib.ExitStack() as stack:
        for number in range(CONNECTIONS):
            connection = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=10))
            connection.sendall(HALVES[number % len(HALVES)])

        with Client(service.url) as client:
            job = client.submit([[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]], "diabetes").wait(timeout=30)

    assert job.status == "succeeded"
