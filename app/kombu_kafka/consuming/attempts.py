"""Which records are being worked on, kept where the death of a process leaves it.

A record that takes its whole process down can be counted only by what was written before. So
whoever begins to work on a record notes it in a file of the state directory, and takes the note
back (or overwrites it) when it has finished; a process that ends in order takes back all of them. What a new process
finds there was being worked on when its predecessor died.

A process has a file of its own (``<name>.begun``; a forked child has another name). It is a JSON list
of topic, partition, offset and number of the attempt, replaced by one write. The number makes it
harmless to read a note twice, or one that was counted already. Not all need be guilty: see the inbox.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from kafka.structs import TopicPartition

from .commit_metadata import CommitMetadata
from .journal import Journal
from .ranges import within

__all__ = ("begin", "end", "forget", "known")

logger = logging.getLogger(__name__)

#: What predecessors left, until the partition is opened and its journal has it.
_LEFT = "left.begun"

Note = tuple[str, int, int]

_lock = threading.Lock()
#: What this process is working on, by state directory: record → number of the attempt.
_begun: dict[str, dict[Note, int]] = {}
#: The file of this process, by state directory (-1: given up), and how long its text is.
_files: dict[str, tuple[int, int]] = {}
#: What predecessors were working on, by state directory.
_left: dict[str, dict[Note, int]] = {}


def begin(
    directory: str,
    name: str,
    topic: str,
    partition: int,
    offset: int,
    attempt: int,
    *,
    alone: bool = False,
) -> None:
    """Note that work on a record begins.

    Arguments:
        directory: the worker's state directory.
        name: this process's among those of its worker.
        topic: where the record lies.
        partition: likewise.
        offset: likewise.
        attempt: number of the attempt, from 1.
        alone: whether the process has finished all that it began before.
    """
    with _lock:
        notes = _begun.setdefault(directory, {})
        if alone:
            notes.clear()
        notes[topic, partition, offset] = attempt
        _note(directory, name, notes)


def end(directory: str, name: str, topic: str, partition: int, offset: int) -> None:
    """Take a note back: whatever came of it, the process lives."""
    with _lock:
        notes = _begun.get(directory, {})
        if notes.pop((topic, partition, offset), None) is not None:
            _note(directory, name, notes)


def forget(directory: str) -> None:
    """Take back all notes of this process and of its children: it ends in order."""
    with _lock:
        _begun.pop(directory, None)
        file, _ = _files.pop(directory, (-1, 0))
        if file >= 0:
            os.close(file)
        for path in Path(directory).glob("*.begun"):
            if path.name != _LEFT:
                with suppress(OSError):
                    path.unlink()


def known(
    directory: str | None,
    partition: TopicPartition,
    position: int,
    said: CommitMetadata | None,
    journal: Journal | None,
) -> dict[int, int]:
    """Return how often records of a partition were begun and not finished, by offset.

    Arguments:
        directory: the state directory, or None.
        partition: which one; it is about to be opened.
        position: where it begins.
        said: what Kafka's metadata says.
        journal: the partition's journal; it is told what predecessors left.
    """
    found = dict(said.attempts) if said else {}
    done = said.done if said else ()
    if journal is not None and directory is not None:
        _most(found, journal.attempts)
        left = _take_left(directory, partition)
        for offset, count in left.items():
            if offset < position or offset in journal.done or within(done, offset):
                continue
            if count > found.get(offset, 0):
                found[offset] = count
                journal.attempt(offset, count)
                logger.warning(
                    "The message of %s-%d at offset %d was being worked on when this worker's "
                    "predecessor died: attempt %d.", *partition, offset, count,
                )  # fmt: skip
    return {offset: count for offset, count in found.items() if offset >= position}


def _most(found: dict[int, int], more: dict[int, int]) -> None:
    for offset, count in more.items():
        found[offset] = max(count, found.get(offset, 0))


def _take_left(directory: str, partition: TopicPartition) -> dict[int, int]:
    with _lock:
        if directory not in _left:
            _left[directory] = _collect(directory)
        left = _left[directory]
        mine = {note: count for note, count in left.items() if note[:2] == tuple(partition)}
        for note in mine:
            del left[note]
        if mine:
            _write_left(directory, left)
        return {offset: count for (_, _, offset), count in mine.items()}


def _collect(directory: str) -> dict[Note, int]:
    """Read what predecessors left, and gather it in one file."""
    left: dict[Note, int] = {}
    paths = [path for path in Path(directory).glob("*.begun") if path.name != _LEFT]
    for path in [*paths, Path(directory) / _LEFT]:
        for note, count in _read(path).items():
            left[note] = max(count, left.get(note, 0))
    if paths:
        _write_left(directory, left)
        for path in paths:
            with suppress(OSError):
                path.unlink()
    return left


def _read(path: Path) -> dict[Note, int]:
    with suppress(OSError, ValueError, TypeError):
        return {
            (str(topic), int(partition), int(offset)): int(attempt)
            for topic, partition, offset, attempt in json.loads(path.read_bytes())
        }
    return {}


def _note(directory: str, name: str, notes: dict[Note, int]) -> None:
    """Write this process's file; where that does not work, it is given up."""
    text = _text(notes)
    try:
        if directory not in _files:
            path = Path(directory) / f"{name}.begun"
            _files[directory] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 0
        file, length = _files[directory]
        if file >= 0:
            # Blanks hide what was there: there is no moment at which the file is cut short.
            os.pwrite(file, text.ljust(length), 0)
            _files[directory] = file, len(text)
    except OSError as exc:
        _files[directory] = -1, 0
        _complain(directory, exc)


def _write_left(directory: str, notes: dict[Note, int]) -> None:
    path = Path(directory) / _LEFT
    partial = path.with_suffix(".partial")
    try:
        if not notes:
            path.unlink(missing_ok=True)
            return
        partial.write_bytes(_text(notes))
        partial.replace(path)
    except OSError as exc:
        _complain(directory, exc)


def _text(notes: dict[Note, int]) -> bytes:
    return json.dumps([[*note, attempt] for note, attempt in notes.items()]).encode()


def _complain(directory: str, exc: OSError) -> None:
    logger.warning(
        "What this worker works on can't be noted in %s (%s): should a message take it down, that "
        "is not counted; mend the directory and restart the worker.", directory, exc,
    )  # fmt: skip


def _after_fork_in_child() -> None:
    global _lock, _begun, _files
    for file, _ in _files.values():
        if file >= 0:
            os.close(file)
    _lock, _begun, _files = threading.Lock(), {}, {}


os.register_at_fork(after_in_child=_after_fork_in_child)
