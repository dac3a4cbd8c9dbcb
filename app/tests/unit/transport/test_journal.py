"""The journal: what it keeps, and what it does with files that are not as they should be."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from kombu_kafka.consuming import journal as journal_module
from kombu_kafka.consuming.journal import Journal, JournalIdentity

IDENTITY = JournalIdentity("cluster", "group", "tasks", "id-1", 0)


def _written(directory: Path, count: int = 5) -> Path:
    journal = Journal(directory, IDENTITY)
    for offset in range(count):
        journal.append(offset, 1000 + offset)
    journal.close()
    return journal.path


def test_it_survives_the_process(tmp_path: Path) -> None:
    _written(tmp_path)
    assert Journal(tmp_path, IDENTITY).done == {n: 1000 + n for n in range(5)}


def test_a_line_cut_short_is_ignored(tmp_path: Path) -> None:
    path = _written(tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    assert set(Journal(tmp_path, IDENTITY).done) == {0, 1, 2, 3}


def test_damage_loses_only_the_damaged_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _written(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\n2 done 1002 ", b"\n3 done 1002 "))
    assert set(Journal(tmp_path, IDENTITY).done) == {0, 1, 3, 4}
    assert "1 damaged line" in caplog.text


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}\n1 2 3\n", b'{"id": 7}\n', b"\x00\xff\n", b"[1]\n5 5 5\n"]
)
def test_a_file_that_is_no_journal_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tasks-0.journal").write_bytes(content)
    journal = Journal(tmp_path, IDENTITY)
    assert journal.done == {}
    journal.append(7, 1)
    journal.close()
    assert Journal(tmp_path, IDENTITY).done == {7: 1}


def test_the_journal_of_a_topic_made_anew_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _written(tmp_path)
    assert Journal(tmp_path, replace(IDENTITY, topic_id="id-2")).done == {}
    assert "belongs to another topic" in caplog.text


def test_it_forgets_what_kafka_knows_and_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_AFTER", 10)
    journal = Journal(tmp_path, IDENTITY)
    for offset in range(100):
        journal.append(offset, offset)
        journal.committed(offset - 2, "text")
    assert set(journal.done) == {97, 98, 99}
    journal.committed(97, "more", [range(98, 99)])
    assert set(journal.done) == {97, 99}
    assert len(journal.path.read_bytes().splitlines()) < 20
    journal.close()
    assert set(Journal(tmp_path, IDENTITY, 97, "more").done) >= {97, 99}


def _committed(directory: Path) -> str:
    """Write a journal whose last word to Kafka was offset 4; return its id."""
    journal = Journal(directory, IDENTITY)
    for offset in range(8):
        journal.append(offset, offset)
    journal.attempt(8, 2)
    journal.committed(4, "told")
    journal.close()
    return journal.id


@pytest.mark.parametrize(
    ("offset", "metadata", "by_us"),
    [
        (4, "told", False),  # its last word, as the metadata's text shows
        (4, "other", True),  # a word of its own that it had no time to write down
        (6, "more", True),
    ],
)
def test_it_speaks_where_kafkas_last_word_was_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, offset: int, metadata: str, by_us: bool
) -> None:
    name = _committed(tmp_path)
    journal = Journal(tmp_path, IDENTITY, offset, metadata, name if by_us else "")
    assert set(journal.done) >= {4, 5, 6, 7}
    assert journal.attempts == {8: 2}
    assert journal.id == name
    assert not caplog.text


@pytest.mark.parametrize(
    ("offset", "metadata", "by"),
    [
        (3, "", "us"),  # moved back
        (4, "", ""),  # moved to where it was: what was done above it is to run again
        (6, "", ""),  # moved on
        (3, "told", "us"),
        (6, "more", "another"),  # another host has owned the partition since
    ],
)
def test_where_somebody_else_had_the_last_word_it_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, offset: int, metadata: str, by: str
) -> None:
    name = _committed(tmp_path)
    journal = Journal(tmp_path, IDENTITY, offset, metadata, name if by == "us" else by)
    assert journal.done == journal.attempts == {}
    assert journal.id != name
    assert "who wants records to run again or has owned the partition since" in caplog.text
    caplog.clear()
    journal.append(9, 9)
    journal.close()
    assert set(Journal(tmp_path, IDENTITY, offset, metadata, by).done) == {9}
    assert not caplog.text


def test_where_kafka_has_forgotten_its_word_the_last_one_holds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = _committed(tmp_path)
    journal = Journal(tmp_path, IDENTITY, None)
    assert (journal.id, journal.told, journal.attempts) == (name, 4, {8: 2})
    assert set(journal.done) >= {4, 5, 6, 7}
    assert "Going on from offset 4" in caplog.text


def test_a_directory_that_cant_be_written_is_no_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with caplog.at_level(logging.WARNING):
        journal = Journal(blocked / "state", IDENTITY)
    journal.append(1, 1)
    journal.committed(2)
    assert "can't be written" in caplog.text


def test_others_cant_read_it(tmp_path: Path) -> None:
    assert _written(tmp_path).stat().st_mode & 0o077 == 0
