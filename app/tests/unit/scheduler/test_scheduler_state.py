"""Where a worker that was given no state directory keeps its state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scheduler.settings import Settings
from scheduler.state import own_state_directory

SETTINGS = Settings(broker_url="kafka://user:secret@a:9092,b:9092//tasks")


def test_it_is_the_workers_own(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    first = own_state_directory(SETTINGS, "one@host", environ)
    assert first is not None
    path = Path(first)
    assert path.is_relative_to(tmp_path / ".local" / "state" / "kombu-kafka")
    assert path.is_dir()
    assert path.stat().st_mode & 0o077 == 0
    assert own_state_directory(SETTINGS, "one@host", environ) == first
    others = {
        own_state_directory(SETTINGS, "two@host", environ),
        own_state_directory(replace(SETTINGS, group_id="other"), "one@host", environ),
        own_state_directory(
            replace(SETTINGS, broker_url="kafka://c:9092//tasks"), "one@host", environ
        ),
        own_state_directory(replace(SETTINGS, partitions=(0, 4)), "one@host", environ),
    }
    assert len(others - {first}) == 4


def test_a_name_is_no_path(tmp_path: Path) -> None:
    found = own_state_directory(SETTINGS, "../../etc", {"XDG_STATE_HOME": str(tmp_path)})
    assert found is not None
    assert Path(found).resolve().is_relative_to(tmp_path / "kombu-kafka")


def test_without_a_home_it_says_what_that_means(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert own_state_directory(SETTINGS, "one@host", {"HOME": str(tmp_path / "file")}) is None
    assert "set STATE_DIRECTORY to a directory of its own" in caplog.text
