"""What the documents say of the code: names, settings, metrics, keys and links are real."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.metrics import MetricWrapperBase

from shared import metrics
from shared.settings import FOREIGN_NAMES, PREFIX, Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(
        ROOT / name
        for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "models/README.md", "examples/README.md")
    ),
    *sorted((ROOT / "docs").rglob("*.md")),
]
#: The words of the design; the glossary has these and no others.
WORDS = [
    "job", "row", "chunk", "micro-batch", "claim", "lease", "attempt", "strike", "wake-up", "sweep",
    "model, version, alias", "signature", "registry", "dead letter",
]  # fmt: skip

_TOP = r"(?:api|worker|shared|scorequeue|deploy|docs|tests|benchmarks|examples|requirements|models|\.ci|\.github)"
_PATH = re.compile(rf"(?<![\w/.-]){_TOP}/[\w./*-]*")
_ROOT_FILE = re.compile(r"`((?:Makefile|Dockerfile\.\w+|[\w.-]+\.(?:toml|yml|md)))`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.M | re.S)

for_each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@for_each_document
def test_every_path_that_is_named_exists(document: Path) -> None:
    """Each path of the project that a document names is there."""
    text = document.read_text()

    named = {match.rstrip(".") for match in _PATH.findall(text)} | set(_ROOT_FILE.findall(text))

    # A folder that is drawn with placeholders, and the registry's own layout, are no paths.
    named = {path for path in named if "*" not in path and not path.startswith("models/breast-cancer")}
    assert [path for path in sorted(named) if not _exists(path, document)] == []


def _exists(path: str, document: Path) -> bool:
    return (ROOT / path).exists() or (document.parent / path).exists()


@for_each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    """Each relative link has a file at its end, and each anchor a heading."""
    broken = []
    for target in _LINK.findall(_FENCE.sub("", document.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in _list_anchors(file)):
            broken.append(target)

    assert broken == []


def _list_anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", document.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_settings_table_is_that_of_the_code() -> None:
    """The README's table has each setting once, with the default of the code, and none that does not exist."""
    section = (ROOT / "README.md").read_text().split("\n## Settings\n")[1].split("\n## ")[0]

    rows = re.findall(r"^\| `(SCOREQUEUE_\w+)` \| (?:`([^`]*)`)? ?\|", section, re.M)

    assert dict(rows) == {
        PREFIX + field.name.upper(): _show(field.default) for field in msgspec.structs.fields(Settings)
    }
    assert len(rows) == len(dict(rows))
    assert {name for name in FOREIGN_NAMES if f"`{name}`" in section} == FOREIGN_NAMES


def _show(default: object) -> str:
    if isinstance(default, float) and default.is_integer():
        return str(int(default))
    return "" if default is None else str(default)


@for_each_document
def test_every_setting_that_is_named_exists(document: Path) -> None:
    """Each SCOREQUEUE_* variable in a document is one that something reads."""
    known = {PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)} | FOREIGN_NAMES
    compose = set(re.findall(r"\$\{(SCOREQUEUE_\w+)", (ROOT / "docker-compose.yml").read_text()))

    named = set(re.findall(r"\bSCOREQUEUE_[A-Z_]+[A-Z]", document.read_text()))

    assert named <= known | compose


def test_the_glossary_has_the_words_of_the_design_and_no_others() -> None:
    """The glossary defines each word once, in the design's order."""
    table = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", (ROOT / "docs" / "glossary.md").read_text(), re.M)

    assert table[1:] == WORDS
    assert table[0] == "word"


@for_each_document
def test_every_metric_that_is_named_exists(document: Path) -> None:
    """Each scorequeue_* series in a document is one that a process exposes, under this very name."""
    named = set(re.findall(r"\bscorequeue_[a-z_]+", document.read_text()))

    assert named <= set(list_series())


def test_the_operations_page_names_every_metric() -> None:
    """Each metric of the code is in the page that says how to aggregate it."""
    text = (ROOT / "docs" / "operations.md").read_text()

    assert [name for name in list_metrics() if f"`{name}`" not in text] == []


def list_metrics() -> Iterator[str]:
    """Name each metric once: a counter with its ending, a histogram without."""
    for value in vars(metrics).values():
        if isinstance(value, MetricWrapperBase):
            for family in value.describe():
                yield family.name + ("_total" if family.type == "counter" else "")
    source = "".join((ROOT / "shared" / name).read_text() for name in ("metrics.py", "quality_metrics.py"))
    for kind, name in re.findall(r'(Counter|Gauge)MetricFamily\(\s*"(scorequeue_[a-z_]+)"', source):
        yield f"{name}_total" if kind == "Counter" else name


def list_series() -> Iterator[str]:
    """Name each series that Prometheus would scrape, and the metrics themselves."""
    for name in list_metrics():
        yield name
        yield from (name + ending for ending in ("_bucket", "_count", "_sum") if not name.endswith("_total"))


@for_each_document
def test_every_key_that_is_named_exists(document: Path) -> None:
    """Each sq:* key in a document begins like one that the store or a script uses."""
    sources = [ROOT / "shared" / "store.py", *(ROOT / "shared" / "lua").glob("*.lua")]
    used = set(re.findall(r"\bsq:[a-z_]+", "".join(path.read_text() for path in sources)))

    assert set(re.findall(r"\bsq:[a-z_]+", document.read_text())) <= used


def test_decisions_are_numbered_and_listed() -> None:
    """The pages of decisions count up from 0001, begin with their number, and each is in the list."""
    folder = ROOT / "docs" / "decisions"
    pages = sorted(folder.glob("0*.md"))
    listed = (folder / "README.md").read_text()

    assert [page.name[:4] for page in pages] == [f"{number:04d}" for number in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text()
        assert text.startswith(f"# {page.name[:4]} ")
        assert "## Context" in text
        assert "## Decision" in text
        assert "## Consequences" in text
        assert f"]({page.name})" in listed


def test_every_script_that_is_named_exists() -> None:
    """Each Lua script that the architecture names is in shared/lua, and those on a job's way are named."""
    scripts = {path.name for path in (ROOT / "shared" / "lua").glob("*.lua")}
    named = set(re.findall(r"\b(\w+\.lua)\b", (ROOT / "docs" / "architecture.md").read_text()))

    assert named <= scripts
    assert {"submit.lua", "claim.lua", "commit_rows.lua", "commit_chunk.lua", "reclaim.lua"} <= named
