"""Environment files: what a worker gets and what a person's shell gets are the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def environment(from_role: Callable[[str], ModuleType]) -> ModuleType:
    return from_role("celery_app/filter_plugins/environment.py")


@pytest.mark.parametrize(
    "value",
    ["plain", "", "two words", "a#b", "it's", 'a"b', "$HOME `id` \\n \\", "kafka://u:p$%40@h/"],
)
def test_a_shell_reads_the_value_that_was_written(
    environment: ModuleType, tmp_path: Path, value: str
) -> None:
    file = tmp_path / "celery.env"
    file.write_text(environment.render({"FIRST": "1", "VALUE": value}))

    read = subprocess.run(
        ["sh", "-c", '. "$0"; printf %s "$VALUE"', str(file)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert read.stdout == value


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"A-B": "1"}, "the name 'A-B'"),
        ({"CUSTOM_PARTITION": "1"}, "sets CUSTOM_PARTITION"),
        ({"KEY": "one\ntwo"}, "gives KEY a value"),
        ({"KEY": ["secret"]}, "gives KEY a value"),
        ({"KEY": None}, "gives KEY a value"),
    ],
)
def test_settings_that_cannot_be_are_refused_without_their_values(
    environment: ModuleType, settings: dict[str, object], said: str
) -> None:
    sentence = environment.fault(settings, ["CUSTOM_PARTITION"])

    assert said in sentence
    assert "secret" not in sentence
    assert sentence.endswith(".")


def test_good_settings_have_no_fault(environment: ModuleType) -> None:
    assert environment.fault({"DATABASE_URL": "postgres://x", "RETRIES": 3}, ["OTHER"]) == ""
