"""Being told to stop while at work: what is in hand is finished first."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from scheduler.dlq.letters import LetterId

__all__ = ["Stop", "command_to_go_on", "stoppable"]


class Stop(threading.Event):
    """Set by the first SIGINT or SIGTERM.

    Attributes:
        number: Which of them it was; 0 while none came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number = 0


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Take the first SIGINT or SIGTERM as a wish to stop; the next one ends the process at once.

    For the main thread, where Python handles signals.
    """
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def asked(number: int, _: Any) -> None:
        restore()
        stop.number = number
        stop.set()

    for number in before:
        signal.signal(number, asked)
    try:
        yield stop
    finally:
        restore()


def command_to_go_on(arguments: Sequence[str], last: LetterId | None) -> str:
    """Return the command that does the rest of an interrupted one.

    Args:
        arguments: What followed `scheduler` on the command line: `dlq`, `replay`, …
        last: The last letter dealt with, or None.
    """
    words, rest = list(arguments[:2]), iter(arguments[2:])
    for word in rest:
        if word == "--after":
            next(rest, None)
        elif not word.startswith("--after="):
            words.append(word)
    if last is not None:
        words[2:2] = ["--after", str(last)]
    return shlex.join(["scheduler", *words])
