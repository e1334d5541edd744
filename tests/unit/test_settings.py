"""Settings are read once, and every fault is told at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.settings import InvalidSettings, Settings


def test_defaults_need_no_environment() -> None:
    """A process without any setting gets the defaults."""
    settings = Settings.from_env({"PATH": "/bin"})

    assert settings == Settings()


def test_values_are_typed() -> None:
    """Numbers and folders are read as such."""
    environ = {"SCOREQUEUE_BATCH_ROWS": "7", "SCOREQUEUE_LEASE_SECONDS": "2.5", "SCOREQUEUE_MODELS": "here"}

    settings = Settings.from_env(environ)

    assert (settings.batch_rows, settings.lease_seconds, settings.models) == (7, 2.5, Path("here"))


def test_all_faults_are_told_at_once() -> None:
    """A misspelt name is named with the nearest one, beside every wrong value."""
    environ = {"SCOREQUEUE_BATCH_ROW": "7", "SCOREQUEUE_CHUNK_ROWS": "many", "SCOREQUEUE_LEASE_SECONDS": "-1"}

    with pytest.raises(InvalidSettings) as refusal:
        Settings.from_env(environ)

    text = str(refusal.value)
    assert len(refusal.value.faults) == 3
    assert "did you mean SCOREQUEUE_BATCH_ROWS?" in text
    assert "SCOREQUEUE_CHUNK_ROWS='many': expected a whole number" in text
    assert "SCOREQUEUE_LEASE_SECONDS='-1'" in text


def test_settings_of_the_client_are_left_alone() -> None:
    """A shell that also sets the client's variables can start the service."""
    assert Settings.from_env({"SCOREQUEUE_URL": "http://x", "SCOREQUEUE_API_KEY": "k"}) == Settings()
