"""Replay by itself what passes by itself: later each time, and never more than a person may."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from kombu_kafka.errors import BrokerUnavailableError
from kombu_kafka.options import Options
from scheduler.dlq.desk import FencedError
from scheduler.dlq.filters import Filter
from scheduler.dlq.index import Entry, Index
from scheduler.dlq.outgoing import MAX_REPLAYS
from scheduler.dlq.reader import Reader
from scheduler.dlq.replay import Order, Outcome, replay

__all__ = ["Backoff", "due", "watch"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backoff:
    """How long a letter waits after it failed.

    Attributes:
        first: Seconds before its first replay.
        factor: By how much longer before each of the next.
    """

    first: float = 60.0
    factor: float = 5.0

    def delay(self, replays: int) -> float:
        """Seconds between a failure and the next replay."""
        return float(self.first * self.factor**replays)


def due(entry: Entry, choice: Filter, backoff: Backoff, now: float) -> bool:
    """Whether a letter is to be replayed now."""
    letter = entry.letter
    return (
        entry.state == "new"
        and letter.kind == "passing"
        and letter.replays < MAX_REPLAYS
        and choice.matches(entry)
        and now >= letter.failed_at + backoff.delay(letter.replays)
    )


def watch(
    options: Options,
    choice: Filter,
    backoff: Backoff,
    order: Order,
    *,
    every: float,
    stop: threading.Event,
    told: Callable[[Outcome], None] = lambda _: None,
) -> None:
    """Replay letters as they become due, until told to stop.

    Brokers that can't be reached are waited for; somebody else who acts goes first.

    Args:
        options: Brokers and the dead letter topic.
        choice: Only these, and of them only the passing ones.
        backoff: How long each waits.
        order: Who, why, at which rate.
        every: Seconds between two looks.
        stop: Ends it.
        told: Called with what each round did.
    """
    while not stop.is_set():
        try:
            with Reader(options) as reader:
                _follow(options, reader, choice, backoff, order, every=every, stop=stop, told=told)
        except (BrokerUnavailableError, FencedError) as exc:
            logger.warning("%s", exc)
            stop.wait(every)


def _follow(
    options: Options,
    reader: Reader,
    choice: Filter,
    backoff: Backoff,
    order: Order,
    *,
    every: float,
    stop: threading.Event,
    told: Callable[[Outcome], None],
) -> None:
    index = Index(options, reader)
    refused: set[object] = set()
    while not stop.is_set():
        index.refresh()
        now = time.time()
        ids = [
            entry.letter.id
            for entry in index.entries()
            if entry.letter.id not in refused and due(entry, choice, backoff, now)
        ]
        if ids:
            outcome = replay(options, reader, index, ids, replace(order, force=False), stop=stop)
            refused.update(letter for letter, _ in outcome.refused)
            told(outcome)
        stop.wait(every)
