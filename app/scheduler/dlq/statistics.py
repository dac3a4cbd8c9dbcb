"""Numbers about the dead letters: for people at once, for the exporter over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kombu_kafka.options import Options
from scheduler.dlq.history import REPLAYED, SKIPPED
from scheduler.dlq.index import Entry, Index
from scheduler.dlq.letters import Letter
from scheduler.dlq.reader import Reader

__all__ = ["Group", "Snapshot", "Statistics", "groups", "rates"]

#: Names of tasks and exceptions that are told apart: whoever may queue tasks may name them.
MAX_GROUPS = 500
#: What the rest is counted as.
OTHERS = "(others)"


@dataclass
class Group:
    """Letters of one task and one exception.

    Attributes:
        task: The task's name, or nothing.
        exception: The exception's class, or nothing.
        states: Number of letters in each state.
        oldest: When the first of those nothing was done with failed, seconds since the epoch.
        newest: When the last of all failed.
    """

    task: str
    exception: str
    states: Counter[str] = field(default_factory=Counter)
    oldest: float | None = None
    newest: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.states.values())


def groups(entries: Iterable[Entry]) -> list[Group]:
    """Count letters by task and exception, the most first."""
    found: dict[tuple[str, str], Group] = {}
    for entry in entries:
        letter = entry.letter
        name = (letter.task, letter.exception or letter.reason)
        group = found.setdefault(name, Group(*name))
        group.states[entry.state] += 1
        group.newest = max(group.newest, letter.failed_at)
        if entry.state == "new":
            group.oldest = min(group.oldest or letter.failed_at, letter.failed_at)
    return sorted(
        found.values(), key=lambda group: (-group.states["new"], -group.total, group.task)
    )


def rates(entries: Iterable[Entry], now: float, *, hours: int = 24) -> list[int]:
    """Count the letters that failed in each of the last hours, the oldest hour first."""
    counts = [0] * hours
    for entry in entries:
        ago = int((now - entry.letter.failed_at) // 3600)
        if 0 <= ago < hours:
            counts[hours - 1 - ago] += 1
    return counts


@dataclass(frozen=True)
class Snapshot:
    """What an exporter tells.

    Attributes:
        depth: Letters nothing was done with, by task and exception.
        oldest: When the first of them failed, seconds since the epoch; None where there is none.
        arrivals: Letters seen since the statistics began, those that were there included, by task,
            exception and reason; it only grows.
        replays: Replays, likewise, by task.
        skips: Skipped letters, likewise, by task.
    """

    depth: dict[tuple[str, str], int]
    oldest: float | None
    arrivals: dict[tuple[str, str, str], int]
    replays: dict[str, int]
    skips: dict[str, int]


class Statistics:
    """Follows a dead letter topic and its history; each call reads only what is new.

    Args:
        options: Brokers and the dead letter topic.

    Raises:
        BrokerUnavailableError: No broker answered within `connect_timeout`.
    """

    def __init__(self, options: Options) -> None:
        self._reader = Reader(options)
        self._index = Index(options, self._reader)
        self._arrivals: Counter[tuple[str, str, str]] = Counter()
        self._acts: dict[str, Counter[str]] = {REPLAYED: Counter(), SKIPPED: Counter()}

    def snapshot(self) -> Snapshot:
        """Read what is new and count.

        Raises:
            BrokerUnavailableError: The brokers don't answer; the next call goes on from here.
        """
        news = self._index.refresh()
        for letter in news.letters:
            self._count(self._arrivals, (*_names(letter), letter.reason))
        for _, act in news.acts:
            if act.act in self._acts:
                self._count(self._acts[act.act], act.task)
        entries = [entry for entry in self._index.entries() if entry.state == "new"]
        depth: Counter[tuple[str, str]] = Counter()
        for entry in entries:
            self._count(depth, _names(entry.letter))
        return Snapshot(
            depth=dict(depth),
            oldest=min((entry.letter.failed_at for entry in entries), default=None),
            arrivals=dict(self._arrivals),
            replays=dict(self._acts[REPLAYED]),
            skips=dict(self._acts[SKIPPED]),
        )

    def close(self) -> None:
        """Let go of the brokers."""
        self._reader.close()

    @staticmethod
    def _count(counter: Counter[Any], name: Any) -> None:
        if name not in counter and len(counter) >= MAX_GROUPS:
            name = OTHERS if isinstance(name, str) else (OTHERS,) * len(name)
        counter[name] += 1


def _names(letter: Letter) -> tuple[str, str]:
    return letter.task, letter.exception
