"""The thread that asks the workers how large their pools are; no event says so."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Set

__all__ = ["PoolAsker"]

#: Seconds between two questions while every worker's answer is known.
ASK_EVERY = 60.0
#: Seconds after which a worker that did not answer is asked again; then twice as many, and so on.
RETRY_SECONDS = 5.0
#: Seconds between two looks at whether there is something to ask.
LOOK_EVERY = 0.5


class PoolAsker:
    """Asks now and then, at once when a worker appears, and again until it has answered.

    A worker says that it is online before it hears questions, and one that is busy answers too
    late: an answer that is missing is no rarity.

    Arguments:
        ask: returns each answering worker's number of processes; may take seconds, and may fail.
        take: called with the answers.
        unknown: returns the workers that are up and of which no number is known.
    """

    def __init__(
        self,
        ask: Callable[[], Mapping[str, int]],
        take: Callable[[Mapping[str, int]], object],
        unknown: Callable[[], Set[str]],
    ) -> None:
        self._ask = ask
        self._take = take
        self._unknown = unknown
        self._stop = threading.Event()
        self._now = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exporter-pools", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(RETRY_SECONDS)

    def ask_now(self) -> None:
        """Ask soon, whatever is known: a worker began anew."""
        self._now.set()

    def _run(self) -> None:
        due, pause, asked = time.monotonic(), RETRY_SECONDS, frozenset[str]()
        while not self._stop.wait(LOOK_EVERY):
            unknown = frozenset(self._unknown())
            if unknown - asked or self._now.is_set():
                due, pause = time.monotonic(), RETRY_SECONDS
            asked = unknown
            if time.monotonic() < due:
                continue
            self._now.clear()
            with contextlib.suppress(Exception):  # what can't be asked now is asked again
                self._take(self._ask())
            if self._unknown():
                due, pause = time.monotonic() + pause, min(2 * pause, ASK_EVERY)
            else:
                due, pause = time.monotonic() + ASK_EVERY, RETRY_SECONDS
