"""The models of one process: which are kept when memory is short, and which are prepared before they are needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.aliases import Target
from shared.registry import Registry
from tests.small_models import register_small_models
from worker.duty import Duty
from worker.model_cache import ModelCache, read_resident_bytes
from worker.models import ModelNotReady
from worker.preparer import Preparer
from worker.trust import Trust

ALL = Duty(("rows",))
#: What each model of these tests seems to take.
TAKES = 10_000


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Register ``iris:1`` to ``iris:3`` and ``line:1`` to ``line:3`` once."""
    folder = tmp_path_factory.mktemp("registered")
    for _ in range(3):
        register_small_models(folder)
    return folder


@pytest.fixture
def registry(registered: Path, tmp_path: Path) -> Registry:
    """Give a registry of its own."""
    return Registry(Path(shutil.copytree(registered, tmp_path / "models")))


def make_cache(registry: Registry, models: float) -> ModelCache:
    """Make a cache with memory for so many models."""
    seconds = iter(range(0, 1000 * TAKES, TAKES))
    return ModelCache(registry, Trust(), int(models * TAKES), measure=lambda: next(seconds))


def test_the_longest_unused_model_goes(registry: Registry) -> None:
    """With room for two, a third takes the place of the one that was not used for longest; it can come back."""
    cache = make_cache(registry, 2)
    first = cache.get("line", 1)
    cache.get("line", 2)
    cache.get("line", 1)

    cache.get("line", 3)

    assert cache.list_warm() == ["line:1", "line:3"]
    assert cache.get("line", 1) is first
    cache.get("line", 2)
    assert cache.list_warm() == ["line:1", "line:2"]


def test_without_a_limit_nothing_goes(registry: Registry) -> None:
    """By default every model that was used stays."""
    cache = ModelCache(registry, Trust())
    for version in (1, 2, 3):
        cache.get("line", version)
        cache.get("iris", version)

    assert len(cache.list_warm()) == 6


def test_a_model_larger_than_the_limit_is_not_ready(registry: Registry) -> None:
    """It says so, and lets nothing else go for it."""
    cache = ModelCache(registry, Trust(), memory_bytes=registry.manifest("line", 1).size + 10)
    cache.get("line", 1)

    with pytest.raises(ModelNotReady, match="larger than SCOREQUEUE_MODEL_MEMORY_BYTES"):
        cache.get("iris", 1)
    assert cache.list_warm() == ["line:1"]
    assert list(cache.list_not_ready()) == ["iris:1"]


def test_what_could_not_be_loaded_says_why_until_it_can(registry: Registry) -> None:
    """The reason is there for whoever asks, and gone when the file is whole again, or the version is removed."""
    path = registry.version_folder("line", 1) / "model.joblib"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    cache = ModelCache(registry, Trust())
    with pytest.raises(ModelNotReady):
        cache.get("line", 1)
    assert "its manifest says" in cache.list_not_ready()["line:1"]

    path.write_bytes(content)
    cache.get("line", 1)

    assert cache.list_not_ready() == {}
    path.write_bytes(b"")
    other = ModelCache(registry, Trust())
    with pytest.raises(ModelNotReady):
        other.get("line", 1)
    shutil.rmtree(registry.version_folder("line", 1))
    assert other.list_not_ready() == {}


def test_the_process_knows_what_it_takes() -> None:
    """The measure grows by what is allocated and touched."""
    before = read_resident_bytes()
    ballast = bytes(bytearray(range(256)) * 200_000)

    assert read_resident_bytes() - before > len(ballast) / 2


def make_preparer(registry: Registry, cache: ModelCache, duty: Duty = ALL) -> tuple[Preparer, list[int]]:
    """Make a preparer, and a list that grows when it has something to say."""
    told: list[int] = []
    return Preparer(registry, cache, duty, lambda: told.append(1)), told


def test_what_aliases_point_to_is_warm_and_nothing_else(registry: Registry) -> None:
    """Champions, both versions of a canary, and shadows are loaded before a job needs them."""
    registry.set_alias("iris", "champion", Target({1: 0.5, 2: 0.5}, shadow=3))
    cache = ModelCache(registry, Trust())

    make_preparer(registry, cache)[0].prepare_aliased()

    assert sorted(cache.list_warm()) == ["iris:1", "iris:2", "iris:3", "line:1"]


def test_a_worker_of_some_models_prepares_these_alone(registry: Registry) -> None:
    """A dedicated worker's memory is for its own models."""
    cache = ModelCache(registry, Trust())
    preparer, _ = make_preparer(registry, cache, Duty(("rows",), ("line",)))

    preparer.prepare_aliased()
    preparer.ask(["iris:2 x", "line:2 x"])
    preparer.answer_asked()

    assert sorted(cache.list_warm()) == ["line:1", "line:2"]
    assert preparer.list_answers() == {"line:2 x": ""}


def test_preparing_never_takes_turns_with_itself(registry: Registry) -> None:
    """More aliased versions than fit are not loaded in a circle: what fits stays."""
    cache = make_cache(registry, 1)
    preparer, told = make_preparer(registry, cache)

    preparer.prepare_aliased()
    warm = cache.list_warm()
    preparer.prepare_aliased()

    assert len(warm) == 1
    assert cache.list_warm() == warm
    assert len(told) == 1


def test_looking_after_the_aliased_is_no_use_of_them(registry: Registry) -> None:
    """What was not used by a job for longest goes first, however often it was seen to be there."""
    cache = make_cache(registry, 3)
    preparer, _ = make_preparer(registry, cache)
    preparer.prepare_aliased()
    cache.get("line", 2)

    preparer.prepare_aliased()
    cache.get("line", 3)

    assert cache.list_warm() == ["line:1", "line:2", "line:3"]


def test_an_old_version_goes_when_its_jobs_are_done(registry: Registry) -> None:
    """What no alias points to goes when it was not used for ten minutes; what an alias points to stays for ever."""
    now = [1000.0]
    cache = ModelCache(registry, Trust(), clock=lambda: now[0])
    preparer, _ = make_preparer(registry, cache)
    preparer.prepare_aliased()
    cache.get("line", 2)
    cache.get("line", 3)

    now[0] += 500
    cache.get("line", 3)
    now[0] += 200
    preparer.prepare_aliased()

    assert sorted(cache.list_warm()) == ["iris:1", "line:1", "line:3"]


def test_a_promotion_is_answered_even_if_another_model_goes_for_it(registry: Registry) -> None:
    """What is asked for is loaded, or the answer says why it was not; an old answer is forgotten."""
    cache = make_cache(registry, 1)
    preparer, told = make_preparer(registry, cache)
    preparer.prepare_aliased()
    (registry.version_folder("iris", 3) / "model.joblib").write_bytes(b"")

    preparer.ask(["iris:2 one", "iris:3 one"])
    preparer.answer_asked()

    answers = preparer.list_answers()
    assert answers["iris:2 one"] == ""
    assert "its manifest says" in answers["iris:3 one"]
    assert len(told) == 3
    preparer.ask(["iris:2 two"])
    preparer.answer_asked()
    assert preparer.list_answers() == {"iris:2 two": ""}
    assert cache.list_warm() == ["iris:2"]


def test_a_warm_version_whose_file_was_damaged_since_is_not_promoted(registry: Registry) -> None:
    """It serves on where it is in memory, but the next process could not load it."""
    cache = ModelCache(registry, Trust())
    preparer, _ = make_preparer(registry, cache)
    preparer.prepare_aliased()
    (registry.version_folder("line", 1) / "model.joblib").write_bytes(b"")

    preparer.ask(["line:1 x"])
    preparer.answer_asked()

    assert "has 0 bytes" in preparer.list_answers()["line:1 x"]
    assert "line:1" in cache.list_warm()


def damage(path: Path) -> Callable[[], None]:
    """Cut a file off; return what mends it."""
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    return lambda: path.write_bytes(content) and None


def test_a_damaged_version_is_tried_again_when_its_files_change(registry: Registry) -> None:
    """A repaired file is served without a restart, and a damaged one is not read again and again."""
    mend = damage(registry.version_folder("line", 1) / "model.joblib")
    cache = ModelCache(registry, Trust())
    preparer, told = make_preparer(registry, cache)
    preparer.prepare_aliased()
    preparer.prepare_aliased()
    assert len(told) == 2  # line:1 once, iris:1 once

    mend()
    preparer.prepare_aliased()

    assert "line:1" in cache.list_warm()
