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
from worker.file_watch import FileWatch
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


def test_a_version_that_failed_for_a_job_is_tried_again_when_its_files_change(registry: Registry) -> None:
    """No alias points to it, so nobody else would try; until then it says why, and no job is taken for it."""
    mend = damage(registry.version_folder("line", 2) / "model.joblib")
    cache = ModelCache(registry, Trust())
    preparer, _ = make_preparer(registry, cache)
    with pytest.raises(ModelNotReady):
        cache.get("line", 2)
    preparer.prepare_aliased()
    assert list(preparer.list_not_ready()) == ["line:2"]

    mend()
    preparer.prepare_aliased()

    assert preparer.list_not_ready() == {}
    assert "line:2" in cache.list_warm()


def look(watch: FileWatch, kept: set[tuple[str, int]] | None = None) -> bool:
    """Let a watch look at all versions; tell whether it has something to say."""
    said = [watch.look(kept or set()) for _ in range(8)]
    return any(said)


def test_damaged_files_of_a_version_that_nobody_uses_are_found(registry: Registry) -> None:
    """A flipped bit, a file cut off, a missing one: known before the version is needed, and gone when it is mended."""
    cache = ModelCache(registry, Trust())
    cache.get("iris", 1)
    watch = FileWatch(registry, cache, ALL, lambda: 0.0)
    assert not look(watch)
    flipped = registry.version_folder("line", 2) / "model.joblib"
    content = flipped.read_bytes()
    flipped.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    mends = [
        lambda: flipped.write_bytes(content) and None,
        damage(registry.version_folder("line", 3) / "model.joblib"),
        damage(registry.version_folder("iris", 1) / "model.joblib"),
        damage(registry.version_folder("line", 1) / "model.joblib"),
    ]
    shutil.move(registry.version_folder("iris", 2) / "model.joblib", registry.root / "away")

    assert look(watch, {("line", 1)})

    found = watch.list_damaged()
    assert sorted(found) == ["iris:2", "line:2", "line:3"]  # not what is warm, nor what is prepared for an alias
    assert "not the file whose SHA-256 was registered" in found["line:2"]
    assert "its manifest says" in found["line:3"]
    assert "cannot be read" in found["iris:2"]
    assert not look(watch, {("line", 1)})
    for mend in mends:
        mend()
    shutil.rmtree(registry.version_folder("iris", 2))
    assert look(watch)
    assert watch.list_damaged() == {}


def test_looking_at_files_takes_a_tenth_of_the_time_at_most(registry: Registry) -> None:
    """Reading large files must not keep a process from its jobs."""
    now = [100.0]

    def read_clock() -> float:
        now[0] += 1.0
        return now[0]

    damage(registry.version_folder("line", 2) / "model.joblib")
    damage(registry.version_folder("line", 3) / "model.joblib")
    watch = FileWatch(registry, ModelCache(registry, Trust()), ALL, read_clock)

    counts = []
    for _ in range(60):
        watch.look(set())
        counts.append(len(watch.list_damaged()))

    assert counts[-1] == 2
    assert counts.index(2) - counts.index(1) >= 4


def test_a_dedicated_worker_looks_at_the_files_of_its_models(registry: Registry) -> None:
    """Those of others are none of its business."""
    damage(registry.version_folder("line", 2) / "model.joblib")

    watch = FileWatch(registry, ModelCache(registry, Trust()), Duty(("rows",), ("iris",)), lambda: 0.0)

    assert not look(watch)
