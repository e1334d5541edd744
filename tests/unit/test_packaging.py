"""What is shipped beside the code: lock files, images, compose file, alert rules, import rules."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from shared import VERSION, metrics
from tests.tools import require_tool

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
DOCKERFILES = [ROOT / "Dockerfile.api", ROOT / "Dockerfile.worker"]

_PINNED = re.compile(
    r"^([a-z0-9][a-z0-9.-]*)==(\S+)((?: ; [^\\]+)?) \\\n((?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def read_compose() -> dict[str, Any]:
    """Parse the compose file, merges resolved."""
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return compose


def read_pins(lock: Path) -> dict[str, set[str]]:
    """Collect the pinned versions of each distribution (several where markers differ)."""
    pins: dict[str, set[str]] = {}
    for name, version, _, _ in _PINNED.findall(lock.read_text()):
        pins.setdefault(name, set()).add(version)
    return pins


def resolve_extra(extra: str) -> Iterator[Requirement]:
    """Walk the direct requirements of an extra of this project, extras of extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"][extra]]:
        requirement = Requirement(text)
        if requirement.name == project["name"]:
            for other in requirement.extras:
                yield from resolve_extra(other)
        else:
            yield requirement


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_file_is_nothing_but_pins_with_hashes(lock: Path) -> None:
    """Every requirement has one exact version and hashes, and no line names an address or an option."""
    text = lock.read_text()

    rest = _PINNED.sub("", text)

    assert rest.strip() == ""
    assert "://" not in text


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_file_satisfies_its_extra(lock: Path) -> None:
    """What pyproject.toml asks of an extra is pinned in its lock file, at a version that it allows."""
    pins = read_pins(lock)

    for requirement in resolve_extra(lock.stem):
        assert requirement.name in pins, f"{requirement} is not in {lock.name}: run `make lock`"
        for version in pins[requirement.name]:
            assert requirement.specifier.contains(version), f"{lock.name} pins {version}, not {requirement}"


def test_the_api_installs_nothing_that_loads_models() -> None:
    """The API's lock file has no scikit-learn, and nothing else that only workers need."""
    pins = read_pins(ROOT / "requirements" / "api.txt")

    assert not pins.keys() & {"scikit-learn", "scipy", "joblib", "pandas"}


def test_there_is_one_version() -> None:
    """The version that the service tells of itself is that of the distribution."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_copies_only_what_exists_and_is_let_through(dockerfile: Path) -> None:
    """Every path that an image copies exists, and .dockerignore lets it into the build."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = re.findall(r"^COPY (\S+) \S+$", dockerfile.read_text(), re.M)

    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == entry or source.startswith(f"{entry}/") for entry in allowed), source


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_starts_without_a_shell_and_without_root(dockerfile: Path) -> None:
    """Entry point, command and health check are in exec form, so signals arrive; the user is not root."""
    text = dockerfile.read_text()

    for instruction in ("ENTRYPOINT", "CMD", "  CMD"):
        (line,) = re.findall(rf"^{instruction} (.*)$", text, re.M)
        assert isinstance(json.loads(line), list)
    assert re.findall(r"^USER (.*)$", text, re.M) == ["scorequeue"]
    assert ("COPY worker" in text) == (dockerfile.name == "Dockerfile.worker")


def test_the_compose_file_names_files_that_exist() -> None:
    """Every Dockerfile, every file that is mounted and every named volume of the compose file is there."""
    compose = read_compose()

    for name, service in compose["services"].items():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"], name


def test_workers_can_be_multiplied() -> None:
    """`--scale worker=4` works: no worker service has a name or a port of its own on the host."""
    services = read_compose()["services"]

    for name in ("worker", "worker-files"):
        assert not services[name].keys() & {"container_name", "ports", "hostname"}


def test_every_service_is_checked_and_hardened() -> None:
    """Each service drops its capabilities, gains no privileges, and is published on loopback at most."""
    services = read_compose()["services"]

    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        # Compose cannot lay a secret from the environment into a read-only container.
        assert service.get("read_only", False) != ("secrets" in service), name
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${SCOREQUEUE_BIND:-127.0.0.1}:")), name
    for name in ("redis", "flower", "prometheus"):
        assert services[name]["healthcheck"]["test"], name


def test_compose_does_not_start_without_the_key_of_prometheus() -> None:
    """Compose refuses to start without it; the other keys are made by command, and nobody is served before."""
    environment = read_compose()["services"]["api"]["environment"]

    assert "${SCOREQUEUE_METRICS_KEY:?" in environment["SCOREQUEUE_METRICS_KEY"]


def test_every_variable_of_compose_is_a_setting() -> None:
    """Each SCOREQUEUE_* variable that compose gives a container is one that the service reads."""
    from shared.settings import Settings

    for service in read_compose()["services"].values():
        given = service.get("environment", {})
        Settings.from_env({name: "" if "$" in text else text for name, text in given.items()})


def test_redis_keeps_what_was_answered() -> None:
    """Redis writes every command to disk before it answers, and evicts nothing."""
    lines = (ROOT / "deploy" / "redis.conf").read_text().splitlines()
    settings = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))

    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory-policy"] == "noeviction"
    assert int(settings["hash-max-listpack-value"]) >= 2048
    assert "maxmemory" in settings


@pytest.mark.parametrize(
    "command",
    [
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
    ],
    ids=" ".join,
)
def test_prometheus_accepts_its_files(command: list[str]) -> None:
    """The scrape configuration and the alert rules are valid, and each alert fires when it should."""
    promtool = require_tool("promtool")

    done = subprocess.run([promtool, *command], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr


def read_alerts() -> list[dict[str, Any]]:
    """List the alert rules of all groups."""
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_says_what_to_do() -> None:
    """Each alert has a severity, a summary with no line break and a description; each is tested by name."""
    tested = (PROMETHEUS / "rules_test.yml").read_text()

    for rule in read_alerts():
        assert rule["labels"]["severity"] in {"page", "warn"}
        assert "\n" not in rule["annotations"]["summary"]
        assert len(rule["annotations"]["description"]) > 80
        assert f'"{rule["alert"]}"' in tested


def test_alerts_ask_only_for_metrics_that_exist() -> None:
    """Each scorequeue_* series in an alert is one that a process of the service exposes."""
    asked = {name for rule in read_alerts() for name in re.findall(r"\bscorequeue_[a-z_]+", rule["expr"])}

    assert asked
    assert asked <= set(list_exposed_series())


def list_exposed_series() -> Iterator[str]:
    """Name every series of `shared.metrics`, as Prometheus would scrape it."""
    for value in vars(metrics).values():
        if isinstance(value, MetricWrapperBase):
            for family in value.describe():
                yield from name_series(family)
    described = "".join((ROOT / "shared" / name).read_text() for name in ("metrics.py", "quality_metrics.py"))
    for kind, name in re.findall(r'(Counter|Gauge)MetricFamily\(\s*"(scorequeue_[a-z_]+)"', described):
        yield f"{name}_total" if kind == "Counter" else name


def name_series(family: Metric) -> list[str]:
    """Name the series of one metric family."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
    return [family.name + suffix for suffix in suffixes]


def test_imports_run_one_way() -> None:
    """`api -> shared <- worker`, scikit-learn in `worker` alone, and a client that needs none of the three."""
    command = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, timeout=110)

    assert done.returncode == 0, done.stdout + done.stderr
