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

__all__ = ["Group", "Snapshot", "Statistics", "Summary", "groups", "rates", "summarize"]

#: Names of tasks and exceptions that are told apart: whoever may queue tasks may name them.
MAX_GROUPS = 500
#: What the rest is counted as.
OTHERS = "(others)"


@dataclass
class Group:
    """Letters of one task and one exception.

    Attributes:
        task: The task's name, or nothing.
        exception: The exception's class, or the reason where there was none.
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


def name_of(letter: Letter) -> tuple[str, str]:
    """Return under which task and exception a letter is counted."""
    return letter.task, letter.exception or letter.reason


def groups(entries: Iterable[Entry]) -> list[Group]:
    """Count letters by task and exception, the most first."""
    found: dict[tuple[str, str], Group] = {}
    for entry in entries:
        letter = entry.letter
        name = name_of(letter)
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
class Summary:
    """How it stands with some letters.

    Attributes:
        groups: By task and exception.
        acts: What was done with them: how often each act, by name of the act and task.
    """

    groups: list[Group]
    acts: dict[str, Counter[str]]

    @property
    def total(self) -> int:
        """Number of letters."""
        return sum(group.total for group in self.groups)

    @property
    def new(self) -> int:
        """Number of letters nothing was done with."""
        return sum(group.states["new"] for group in self.groups)

    @property
    def oldest(self) -> float | None:
        """When the first of those failed, seconds since the epoch; None where there is none."""
        return min(
            (group.oldest for group in self.groups if group.oldest is not None), default=None
        )


def summarize(entries: Iterable[Entry]) -> Summary:
    """Count letters, and what was done with them."""
    entries = list(entries)
    acts: dict[str, Counter[str]] = {REPLAYED: Counter(), SKIPPED: Counter()}
    for entry in entries:
        for act in entry.acts:
            if act.act in acts:
                acts[act.act][entry.letter.task] += 1
    return Summary(groups(entries), acts)


@dataclass(frozen=True)
class Snapshot:
    """What an exporter tells.

    Attributes:
        summary: How it stands with the letters that are there.
        arrivals: Letters that came since the statistics began, by task, exception and reason; it
            only grows.
        replays: Replays, likewise, by task.
        skips: Skipped letters, likewise, by task.
    """

    summary: Summary
    arrivals: dict[tuple[str, str, str], int]
    replays: dict[str, int]
    skips: dict[str, int]


class Statistics:
    """Follows a dead letter topic and its history; each call reads only what is new.

    The first call begins: what lies there then was counted by whoever looked before. It counts as 0
    of its kind, so that one more of it is seen to be one more.

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
        self._begun = False

    def snapshot(self) -> Snapshot:
        """Read what is new and count.

        Raises:
            BrokerUnavailableError: The brokers don't answer; the next call goes on from here.
        """
        news = self._index.refresh()
        one = int(self._begun)
        for letter in news.letters:
            self._count(self._arrivals, (*name_of(letter), letter.reason), one)
        for _, act in news.acts:
            if act.act in self._acts:
                self._count(self._acts[act.act], act.task, one)
        self._begun = True
        return Snapshot(
            summary=summarize(self._index.entries()),
            arrivals=dict(self._arrivals),
            replays=dict(self._acts[REPLAYED]),
            skips=dict(self._acts[SKIPPED]),
        )

    def close(self) -> None:
        """Let go of the brokers."""
        self._reader.close()

    @staticmethod
    def _count(counter: Counter[Any], name: Any, by: int) -> None:
        if name not in counter and len(counter) >= MAX_GROUPS:
            name = OTHERS if isinstance(name, str) else (OTHERS,) * len(name)
        counter[name] += by
