"""The registry: references, aliases, immutability, and what damaged files do."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shared.aliases import Target
from shared.manifest import Description, Manifest
from shared.references import BrokenManifest, UnknownModel
from shared.registry import Registry, VersionExists
from shared.signature import Column, Signature

SIGNATURE = Signature((Column("x", min=0.0, max=1.0), Column("y", nullable=True)), "regression")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Give an empty registry whose folder does not exist yet."""
    return Registry(tmp_path / "models")


def write(
    registry: Registry, name: str = "churn", content: bytes = b"model", version: int | None = None, **fields: Any
) -> Manifest:
    """Write a small version; any field of the manifest can be given."""
    values: dict[str, Any] = {"signature": SIGNATURE, "libraries": {"scikit-learn": "1.9.1"}, **fields}
    return registry.write_version(name, content, Description(**values), version=version)


def edit_manifest(registry: Registry, name: str, version: int, fields: dict[str, object]) -> None:
    """Overwrite fields of a stored manifest."""
    path = registry.version_folder(name, version) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_missing_folder_is_an_empty_registry(registry: Registry) -> None:
    """A registry whose folder does not exist has no models and says so."""
    assert registry.names() == []
    assert registry.all_versions() == []
    with pytest.raises(UnknownModel, match="the registry is empty") as caught:
        registry.resolve("churn")
    assert caught.value.code == "unknown_model"


def test_what_was_written_is_read_back_by_another_reader(registry: Registry) -> None:
    """A second process reads the same manifest that the writer got, and the same bytes."""
    written = write(registry, content=b"\x00bytes", metrics={"r2": 0.5}, max_batch_rows=64)

    reader = Registry(registry.root)

    assert reader.manifest("churn", 1) == written
    assert (reader.version_folder("churn", 1) / written.file).read_bytes() == b"\x00bytes"
    assert written.signature.column_names == ("x", "y")
    assert written.signature.nullable_columns == (False, True)
    assert written.created_at.endswith("Z")


def test_the_three_forms_of_a_reference(registry: Registry) -> None:
    """A bare name means the champion; an alias and a version mean what they say."""
    for _ in range(3):
        write(registry)
    registry.set_alias("churn", "champion", 2)
    registry.set_alias("churn", "challenger", 3)

    assert registry.resolve("churn").version == 2
    assert registry.resolve("churn@challenger").version == 3
    assert registry.resolve("churn:1").reference == "churn:1"


def test_a_moved_alias_is_seen_by_a_reader_that_had_the_old_one(registry: Registry) -> None:
    """Readers follow an alias that another process moves."""
    write(registry)
    write(registry)
    registry.set_alias("churn", "champion", 1)
    reader = Registry(registry.root)
    assert reader.resolve("churn").version == 1

    registry.set_alias("churn", "champion", 2)

    assert reader.resolve("churn").version == 2


def test_a_manifest_is_read_once_and_again_when_its_file_changes(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that has it in memory still sees that it was damaged, is gone, or was put back."""
    write(registry)
    read = registry.manifest("churn", 1)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read again"))
        assert registry.resolve("churn:1") is read
    path = registry.version_folder("churn", 1) / "manifest.json"
    content = path.read_bytes()

    path.write_bytes(content[:-20])
    with pytest.raises(BrokenManifest, match="is not JSON"):
        registry.manifest("churn", 1)
    path.unlink()
    with pytest.raises(BrokenManifest, match="cannot be read"):
        registry.resolve("churn:1")
    path.write_bytes(content)

    assert registry.manifest("churn", 1) == read


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("chrun", "did you mean 'churn'"),
        ("fraud", "there is churn"),
        ("churn@challenger", "no alias 'challenger'; it has champion"),
        ("churn:7", "no version 7; it has 1"),
        ("churn:0", "'0' is not a version"),
        ("churn:01", "'01' is not a version"),
        ("churn:latest", "'latest' is not a version"),
        ("churn:", "'' is not a version"),
        ("churn@", "no alias ''"),
        ("", "expected name, name@alias or name:version"),
        ("Churn", "expected name"),
        ("../churn", "expected name"),
        ("..", "expected name"),
        ("churn/1", "expected name"),
        ("churn\n", "expected name"),
        ("x" * 5000, "expected name"),
        ("churn:1:2", "is not a version"),
        ("churn@champion:1", "no alias"),
        ("churn:" + "9" * 40, "is not a version"),
    ],
)
def test_an_unknown_reference_names_what_exists(registry: Registry, reference: str, expected: str) -> None:
    """Each reference that leads nowhere is answered with what was expected, in a short message."""
    write(registry)
    registry.set_alias("churn", "champion", 1)

    with pytest.raises(UnknownModel) as caught:
        registry.resolve(reference)

    assert expected in caught.value.detail
    assert caught.value.reference == reference
    assert len(caught.value.detail) < 400


def test_a_name_without_champion_names_a_version_to_use(registry: Registry) -> None:
    """A bare name without champion is refused with a reference that works."""
    write(registry)

    with pytest.raises(UnknownModel, match="use churn:1"):
        registry.resolve("churn")


def test_a_version_is_written_once(registry: Registry) -> None:
    """Writing a version that is there is refused and leaves it as it was."""
    write(registry, version=4, content=b"first")

    with pytest.raises(VersionExists, match="churn:4"):
        write(registry, version=4, content=b"second")

    assert (registry.version_folder("churn", 4) / "model.joblib").read_bytes() == b"first"
    assert write(registry).version == 5


@pytest.mark.parametrize("name", ["", "..", "a/b", "Churn", ".hidden", "x" * 101, "a b", "a\n"])
def test_a_bad_name_is_never_written(registry: Registry, name: str) -> None:
    """A name that is not a model name cannot become a folder."""
    with pytest.raises(ValueError, match="not a model name"):
        write(registry, name)
    assert not registry.root.exists()


@pytest.mark.parametrize(("alias", "version", "error"), [("UP", 1, ValueError), ("next", 9, UnknownModel)])
def test_an_alias_points_only_to_what_exists(
    registry: Registry, alias: str, version: int, error: type[Exception]
) -> None:
    """A bad alias name or a version that is not there changes nothing."""
    write(registry)

    with pytest.raises(error):
        registry.set_alias("churn", alias, version)

    assert registry.aliases("churn") == {}


def test_a_version_that_fails_its_check_is_not_written(registry: Registry) -> None:
    """What a check raises stops the writing; the next version takes the number."""

    def refuse(manifest: Manifest) -> None:
        raise ValueError(f"{manifest.reference} of {manifest.size} bytes is not wanted")

    description = Description(signature=SIGNATURE, libraries={})
    with pytest.raises(ValueError, match="churn:1 of 5 bytes is not wanted"):
        registry.write_version("churn", b"model", description, check=refuse)

    assert registry.names() == []
    assert write(registry).version == 1


def test_a_write_that_fails_leaves_nothing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fails before the rename, there is no version and no half-written folder."""

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    write(registry)
    monkeypatch.setattr("os.fsync", fail)

    with pytest.raises(OSError, match="No space left"):
        write(registry)

    assert registry.versions("churn") == [1]
    assert sorted(path.name for path in (registry.root / "churn").iterdir()) == [".lock", "1"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sha256": "short"}, "$.sha256"),
        ({"version": "one"}, "$.version"),
        ({"version": 8}, "$.version"),
        ({"name": "other"}, "$.name"),
        ({"file": "../../secret"}, "$.file"),
        ({"created_at": "yesterday"}, "$.created_at"),
        ({"format": "exe"}, "$.format"),
        ({"signature": {"columns": [], "task": "regression"}}, "$.signature"),
        (
            {"signature": {"columns": [{"name": "x", "type": "text"}], "task": "regression"}},
            "$.signature.columns",
        ),
        ({"signature": {"columns": [{"name": "x"}], "task": "classification"}}, "$.signature"),
        ({"signature": {"columns": [{"name": "x"}, {"name": "x"}], "task": "regression"}}, "$.signature"),
    ],
)
def test_a_broken_manifest_names_file_and_field(registry: Registry, fields: dict[str, object], field: str) -> None:
    """A manifest with a wrong field is refused with the file and the field, and nothing else suffers."""
    write(registry)
    write(registry, "fraud")
    edit_manifest(registry, "churn", 1, fields)
    reader = Registry(registry.root)

    with pytest.raises(BrokenManifest) as caught:
        reader.resolve("churn:1")

    assert caught.value.file == "churn/1/manifest.json"
    assert caught.value.field is not None
    assert caught.value.field.startswith(field)
    assert caught.value.code == "model_not_ready"
    assert [manifest.name for manifest in reader.all_versions()] == ["fraud"]
    assert [fault.file for fault in reader.faults()] == ["churn/1/manifest.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_a_manifest_that_is_no_manifest(registry: Registry, content: bytes) -> None:
    """Cut-off, binary or foreign content is a broken manifest, whatever it is."""
    write(registry)
    (registry.version_folder("churn", 1) / "manifest.json").write_bytes(content)

    with pytest.raises(BrokenManifest, match=r"churn/1/manifest\.json"):
        Registry(registry.root).manifest("churn", 1)


def test_a_version_folder_without_manifest(registry: Registry) -> None:
    """A folder without manifest is reported as broken and hides no other version."""
    write(registry)
    (registry.root / "churn" / "2").mkdir()

    assert [manifest.version for manifest in registry.all_versions()] == [1]
    assert [fault.file for fault in registry.faults()] == ["churn/2/manifest.json"]


def test_a_repaired_manifest_is_usable_without_a_restart(registry: Registry) -> None:
    """A broken manifest is not remembered."""
    write(registry)
    reader = Registry(registry.root)
    edit_manifest(registry, "churn", 1, {"size": -1})
    with pytest.raises(BrokenManifest):
        reader.manifest("churn", 1)

    edit_manifest(registry, "churn", 1, {"size": 5})

    assert reader.manifest("churn", 1).size == 5


@pytest.mark.parametrize("content", ["{", '{"champion": "2"}', "[]"])
def test_broken_aliases_leave_versions_usable(registry: Registry, content: str) -> None:
    """Damaged aliases stop the references that need them, and only these."""
    write(registry)
    (registry.root / "churn" / "aliases.json").write_text(content)

    assert registry.resolve("churn:1").version == 1
    with pytest.raises(BrokenManifest, match=r"churn/aliases\.json"):
        registry.resolve("churn")


def test_an_alias_to_a_missing_version_is_broken(registry: Registry) -> None:
    """An alias that points nowhere names itself as the fault."""
    write(registry)
    (registry.root / "churn" / "aliases.json").write_text('{"champion": 2}')

    with pytest.raises(BrokenManifest, match=r"field \$.champion: version 2 is not there"):
        registry.resolve("churn")


def test_writers_at_the_same_time_get_different_versions(registry: Registry) -> None:
    """Eight writers at once make eight versions, and no alias of theirs is lost."""

    def register(number: int) -> None:
        version = write(Registry(registry.root), content=bytes([number])).version
        Registry(registry.root).set_alias("churn", f"writer-{number}", version)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert registry.versions("churn") == list(range(1, 9))
    assert sorted(target.heaviest for target in registry.aliases("churn").values()) == list(range(1, 9))


@pytest.mark.parametrize(
    ("versions", "shadow", "message"),
    [
        ({}, None, "at least one version"),
        ({1: 0.5, 2: 0.4}, None, "add up to 0.9: expected 1"),
        ({1: 0.0, 2: 1.0}, None, "weight of version 1 is 0.0"),
        ({1: 1.5, 2: -0.5}, None, "weight of version 1 is 1.5"),
        ({1: float("nan")}, None, "weight of version 1 is nan"),
        ({1: 1.0}, 1, "cannot be the shadow of itself"),
    ],
)
def test_weights_that_make_no_sense_are_refused(versions: dict[int, float], shadow: int | None, message: str) -> None:
    """Shares are more than 0, at most 1, and add up to 1."""
    with pytest.raises(ValueError, match=message):
        Target(versions, shadow)


def test_an_alias_to_two_versions_means_each_by_its_weight(registry: Registry) -> None:
    """Of a thousand submissions about a hundred meet the version with a tenth; another reader sees the same alias."""
    for _ in range(3):
        write(registry)
    registry.set_alias("churn", "champion", Target({1: 0.9, 3: 0.1}, shadow=2))

    reader = Registry(registry.root)
    met = Counter(reader.resolve("churn").version for _ in range(1000))

    assert set(met) == {1, 3}
    assert 50 < met[3] < 170
    assert reader.aliased_versions("churn") == {1, 2, 3}
    assert [reader.find_shadow("churn", version) for version in (1, 2, 3)] == [2, None, 2]
    stored = json.loads((registry.root / "churn" / "aliases.json").read_text())
    assert stored == {"champion": {"versions": {"1": 0.9, "3": 0.1}, "shadow": 2}}


@pytest.mark.parametrize(("point", "version"), [(0.0, 1), (0.899, 1), (0.9, 3), (0.999999, 3), (1.0, 3)])
def test_every_point_falls_into_one_share(point: float, version: int) -> None:
    """The shares cover all from 0 to 1 without a gap."""
    assert Target({3: 0.1, 1: 0.9}).choose(point) == version


def test_versions_behind_one_alias_read_the_same_columns(registry: Registry) -> None:
    """A submission that may meet either version must fit both."""
    write(registry)
    write(registry, signature=Signature((Column("y"), Column("x")), "regression"))

    with pytest.raises(ValueError, match="churn:1 and churn:2 do not read the same columns"):
        registry.set_alias("churn", "champion", Target({1: 0.5, 2: 0.5}))
    with pytest.raises(ValueError, match="do not read the same columns"):
        registry.set_alias("churn", "champion", Target({1: 1.0}, shadow=2))


def test_a_removed_version_is_gone_for_every_reader_and_its_number_is_not_given_again(registry: Registry) -> None:
    """A job of a removed version never means another model; readers that knew the version notice."""
    for _ in range(2):
        write(registry)
    registry.set_alias("churn", "champion", 1)
    reader = Registry(registry.root)
    assert reader.resolve("churn:2").version == 2

    registry.remove_version("churn", 2)

    with pytest.raises(UnknownModel, match="no version 2"):
        reader.resolve("churn:2")
    assert json.loads((registry.root / "churn" / "removed.json").read_text()) == [2]
    assert sorted(path.name for path in (registry.root / "churn").iterdir()) == [
        ".lock", "1", "aliases.json", "removed.json"
    ]  # fmt: skip
    assert write(registry).version == 3
    with pytest.raises(VersionExists, match="churn:2 exists already, or did"):
        write(registry, version=2)


def test_a_version_with_an_alias_is_removed_only_as_the_last(registry: Registry) -> None:
    """What is served cannot be removed by mistake; a whole model can, its aliases with it."""
    for _ in range(2):
        write(registry)
    registry.set_alias("churn", "champion", Target({1: 1.0}, shadow=2))
    for version in (1, 2):
        with pytest.raises(
            ValueError, match=f"churn@champion points to churn:{version}: promote another version first"
        ):
            registry.remove_version("churn", version)
    with pytest.raises(UnknownModel):
        registry.remove_version("churn", 9)

    registry.set_alias("churn", "champion", 1)
    registry.remove_version("churn", 2)
    registry.remove_version("churn", 1)

    assert registry.names() == []
    assert registry.aliases("churn") == {}
    assert write(registry).version == 3
