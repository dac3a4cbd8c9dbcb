"""Notes of what is being worked on: what a new process makes of its predecessor's."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka.structs import TopicPartition

from kombu_kafka.consuming import attempts
from kombu_kafka.consuming.commit_metadata import CommitMetadata
from kombu_kafka.consuming.journal import Journal, JournalIdentity

TASKS = TopicPartition("tasks", 0)
IDENTITY = JournalIdentity("c", "g", "tasks", "t", 0)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path)
    _die(str(tmp_path))


def _die(directory: str) -> None:
    """Forget what the process knew, as its death does; the files stay."""
    attempts._left.pop(directory, None)
    attempts._begun.pop(directory, None)
    file, _ = attempts._files.pop(directory, (-1, 0))
    if file >= 0:
        os.close(file)


def _known(directory: str, position: int = 0, said: CommitMetadata | None = None) -> dict[int, int]:
    journal = Journal(directory, IDENTITY)
    try:
        return attempts.known(directory, TASKS, position, said, journal)
    finally:
        journal.close()


def test_what_was_being_worked_on_at_a_death_counts_once_for_ever(directory: str) -> None:
    _known(directory)
    attempts.begin(directory, "main", "tasks", 0, 5, 1)
    attempts.begin(directory, "main", "tasks", 0, 6, 1)
    attempts.begin(directory, "main", "tasks", 1, 7, 2)
    attempts.end(directory, "main", "tasks", 0, 6)
    attempts.end(directory, "main", "tasks", 0, 99)
    for _ in range(3):  # the journal has it, and the other partition is not opened
        _die(directory)
        assert _known(directory) == {5: 1}
    other = Journal(directory, JournalIdentity("c", "g", "tasks", "t", 1))
    assert attempts.known(directory, TopicPartition("tasks", 1), 0, None, other) == {7: 2}
    assert not list(Path(directory).glob("*.begun"))


def test_the_number_of_the_attempt_counts_not_how_often_it_is_found(directory: str) -> None:
    journal = Journal(directory, IDENTITY)
    attempts.known(directory, TASKS, 0, None, journal)
    attempts.begin(directory, "child-0", "tasks", 0, 5, 1, alone=True)
    journal.attempt(5, 1)  # the parent saw the child die
    journal.close()
    _die(directory)
    assert _known(directory) == {5: 1}


def test_a_childs_next_task_replaces_its_note(directory: str) -> None:
    for offset in range(5):
        attempts.begin(directory, "child-0", "tasks", 0, offset, 1, alone=True)
    _die(directory)
    assert _known(directory) == {4: 1}


def test_an_end_in_order_counts_for_nothing(directory: str) -> None:
    _known(directory)
    attempts.begin(directory, "main", "tasks", 0, 5, 1)
    (Path(directory) / "child-0.begun").write_text('[["tasks", 0, 6, 1]]')
    attempts.forget(directory)
    _die(directory)
    assert _known(directory) == {}


def test_what_is_done_or_passed_is_not_counted(directory: str) -> None:
    journal = Journal(directory, IDENTITY)
    journal.append(6, 0)
    journal.close()
    (Path(directory) / "main.begun").write_text(
        '[["tasks", 0, 2, 1], ["tasks", 0, 6, 1], ["tasks", 0, 7, 1]]'
    )
    assert _known(directory, 3) == {7: 1}


def test_kafkas_word_counts_too_and_the_highest_number_holds(directory: str) -> None:
    (Path(directory) / "main.begun").write_text('[["tasks", 0, 7, 2]]')
    said = CommitMetadata("w", 3, attempts={7: 1, 8: 2})
    assert _known(directory, 3, said) == {7: 2, 8: 2}
    assert attempts.known(None, TASKS, 3, said, None) == {7: 1, 8: 2}


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", '[["a", "b", "c", "d"]]', "\x00\xff"])
def test_a_damaged_note_says_nothing(directory: str, text: str) -> None:
    (Path(directory) / "main.begun").write_text(text)
    assert _known(directory) == {}


def test_a_directory_that_cant_be_written_is_complained_of_once(
    directory: str, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = str(Path(directory) / "missing")
    with caplog.at_level(logging.WARNING):
        for offset in range(3):
            attempts.begin(nowhere, "main", "tasks", 0, offset, 1)
    assert caplog.text.count("can't be noted in") == 1
    _die(nowhere)
