"""Which letters are meant, and in which order."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from scheduler.dlq.index import Entry
from scheduler.dlq.letters import LetterId

__all__ = ["SORTS", "STATES", "Filter", "FilterError", "parse_time", "sort"]

#: What a letter can be: nothing was done with it, it was replayed, a person skipped it.
STATES = ("new", "replayed", "skipped")

#: What letters can be sorted by.
SORTS: dict[str, Callable[[Entry], Any]] = {
    "failed": lambda entry: entry.letter.failed_at,
    "first-failed": lambda entry: entry.letter.first_failed_at,
    "task": lambda entry: entry.letter.task,
    "exception": lambda entry: entry.letter.exception,
    "reason": lambda entry: entry.letter.reason,
    "partition": lambda entry: (entry.letter.topic, entry.letter.partition or 0, entry.letter.offset or 0),
    "replays": lambda entry: entry.letter.replays,
    "size": lambda entry: entry.letter.size,
    "id": lambda entry: entry.letter.id,
}  # fmt: skip

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class FilterError(ValueError):
    """A filter can't be understood; the sentence says why."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A choice of letters; what is None is not asked for. Names may hold `*` and `?`.

    Attributes:
        ids: Letters by id.
        after: Only those that lie after this one.
        task: Name of the task.
        exception: Name of the exception's class.
        reason: Why it is here (`exception`, `time-limit`, …).
        kind: `passing` or `hard`.
        topic: The topic it was consumed from.
        partition: The partition it was consumed from.
        since: Failed then or later, in seconds since the epoch.
        until: Failed before.
        key: The record's key.
        task_id: The task's id.
        state: One of `STATES`.
    """

    ids: frozenset[LetterId] | None = None
    after: LetterId | None = None
    task: str | None = None
    exception: str | None = None
    reason: str | None = None
    kind: str | None = None
    topic: str | None = None
    partition: int | None = None
    since: float | None = None
    until: float | None = None
    key: str | None = None
    task_id: str | None = None
    state: str | None = None

    @property
    def narrows(self) -> bool:
        """Whether anything is asked for besides a state and where to begin."""
        asked = {name: value for name, value in vars(self).items() if value is not None}
        return bool(asked.keys() - {"state", "after"})

    def matches(self, entry: Entry) -> bool:
        """Whether a letter is meant."""
        letter = entry.letter
        return (
            (self.ids is None or letter.id in self.ids)
            and (self.after is None or letter.id > self.after)
            and _like(letter.task, self.task)
            and _like(letter.exception, self.exception)
            and _like(letter.reason, self.reason)
            and _like(letter.kind, self.kind)
            and _like(letter.topic, self.topic)
            and (self.partition is None or letter.partition == self.partition)
            and (self.since is None or letter.failed_at >= self.since)
            and (self.until is None or letter.failed_at < self.until)
            and _like(letter.key_text, self.key)
            and _like(letter.task_id, self.task_id)
            and (self.state is None or entry.state == self.state)
        )

    def choose(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return the letters that are meant."""
        return [entry for entry in entries if self.matches(entry)]


def sort(entries: Iterable[Entry], by: str, *, reverse: bool = False) -> list[Entry]:
    """Sort letters; those that are equal by their ids."""
    return sorted(sorted(entries, key=SORTS["id"], reverse=reverse), key=SORTS[by], reverse=reverse)


def parse_time(text: str, now: float | None = None) -> float:
    """Read a moment: `2h` (ago), `2026-11-22`, `2026-11-22T03:00`, in local time unless it says.

    Returns:
        Seconds since the epoch.

    Raises:
        FilterError: It is neither.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if found is not None:
        return (time.time() if now is None else now) - float(found[1]) * _UNITS[found[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise FilterError(
            f"{text!r} is no time: write how long ago (90s, 30m, 2h, 3d), or a date such as"
            " 2026-11-22T03:00."
        ) from None


def _like(text: str, pattern: str | None) -> bool:
    return pattern is None or text == pattern or fnmatchcase(text, pattern)
