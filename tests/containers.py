"""Containers of the project's images, without a Docker engine: buildah, on the host's network.

The images are built by a tool that lies beside the checkout on the machines where this project is made; elsewhere the
workflow builds them with Docker.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD_IMAGES = ROOT.parent / "shared" / "tools" / "build-images"

#: As in the tool: no overlay file systems and no namespaces, so that it works inside a container too.
_ENVIRONMENT = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}


def build_images(*dockerfiles: str) -> None:
    """Build images; the first time makes a base image and downloads all dependencies."""
    done = subprocess.run(
        [BUILD_IMAGES, *dockerfiles],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1100,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def run_in_image(image: str, *command: str) -> str:
    """Run a command in an image to its end and return what it printed."""
    done = subprocess.run(
        [BUILD_IMAGES, "--run", image, *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def read_health_check(image: str) -> list[str]:
    """Return the command of the health check in an image's Dockerfile (this builder does not keep it)."""
    (line,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (.*)$", (ROOT / f"Dockerfile.{image}").read_text(), re.M)
    command: list[str] = json.loads(line)
    return command


class Container:
    """A container of a built image, with volumes, that runs one command.

    Parameters
    ----------
    image : str
        ``api`` or ``worker``.
    folder : Path
        Made here, and its /tmp: compose gives it a tmpfs there.
    volumes : mapping of Path to str
        Host folders and where they are mounted, with ``:ro`` behind it for reading only.
    environment : mapping of str to str
    """

    def __init__(self, image: str, folder: Path, volumes: Mapping[Path, str], environment: Mapping[str, str]) -> None:
        self.image = image
        self.folder = folder
        folder.mkdir()
        folder.chmod(0o777)
        self._volumes = {**volumes, folder: "/tmp"}
        self._environment = environment
        self._id = _buildah("from", "--pull-never", f"localhost/{image}:test")
        described = json.loads(_buildah("inspect", "--type", "image", f"localhost/{image}:test"))
        self._entry_point: list[str] = described["OCIv1"]["config"]["Entrypoint"]
        self._command: list[str] = described["OCIv1"]["config"]["Cmd"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str] | None = None) -> None:
        """Start the image's command, or another one behind its entry point."""
        noted = ["sh", "-c", 'echo $$ >/tmp/pid; exec "$@"', "sh", *self._entry_point]
        with open(self.folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                self._complete([*noted, *(command or self._command)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_ENVIRONMENT,
            )

    def run(self, *command: str) -> None:
        """Run a command to its end, beside the started one if there is one."""
        done = subprocess.run(
            self._complete(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
            env=_ENVIRONMENT,
        )
        assert done.returncode == 0, f"{self.image}: {done.stdout}{done.stderr}"

    def is_running(self) -> bool:
        """Tell whether the started command still runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self, timeout: float) -> int:
        """Send SIGTERM to the started command, as Docker does; return its exit status."""
        assert self._process is not None
        os.kill(self._read_pid(), signal.SIGTERM)
        return self._process.wait(timeout)

    def read_log(self) -> str:
        """Return what the started command printed."""
        return (self.folder / "log").read_text()

    def remove(self) -> None:
        """End what still runs and remove the container."""
        if self._process is not None and self.is_running():
            try:
                self.stop(timeout=30)
            except FileNotFoundError:  # the command has not begun
                self._process.kill()
            except subprocess.TimeoutExpired:
                # Killing buildah would leave the command running.
                os.kill(self._read_pid(), signal.SIGKILL)
            self._process.wait(timeout=10)
        _buildah("rm", self._id)

    def _read_pid(self) -> int:
        return int((self.folder / "pid").read_text())

    def _complete(self, command: list[str] | tuple[str, ...]) -> list[str]:
        volumes = [part for host, inside in self._volumes.items() for part in ("-v", f"{host}:{inside}")]
        variables = [part for item in self._environment.items() for part in ("--env", "=".join(item))]
        return ["buildah", "run", *volumes, *variables, self._id, "--", *command]


def _buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, timeout=110, env=_ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
