"""The examples, run as they stand against a real service: what it answers is what the model answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, RunningService

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
#: Run behind an example, in its namespace: what the model itself says.
EXPECTED = {
    "forest.py": """
expected = model.predict(wine.data.sample(3, random_state=1)).tolist()
assert job.result()["predictions"] == expected, expected
""",
    "mixed_types.py": """
assert scored["prediction"].tolist() == model.predict(features.tail(4)).tolist()
assert features["sex"].isna().any()
""",
    "onnx_file.py": """
assert result["predictions"] == model.predict(rows[:3]).tolist()
assert np.allclose(result["probabilities"], model.predict_proba(rows[:3]), rtol=1e-5)
""",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_ends_with_what_the_model_answers(service: RunningService, tmp_path: Path, example: Path) -> None:
    """It registers, scores and prints, and the answers are the model's own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SCOREQUEUE_URL": service.url}
    environment["SCOREQUEUE_MODELS"] = str(service.models)
    script = example.read_text() + EXPECTED[example.name]

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr == ""


def test_the_way_from_fit_to_answers_is_ten_lines() -> None:
    """After the model is fitted an example takes ten lines at most, of which some are blank."""
    for example in EXAMPLES:
        after = example.read_text().split("\nversion = register(")[1].splitlines()
        assert len(after) <= 10, example.name
