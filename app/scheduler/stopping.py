"""Being told to stop while at work: what is in hand is finished first."""

from __future__ import annotations

import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Stop", "stoppable"]


class Stop(threading.Event):
    """Set by the first SIGINT or SIGTERM.

    Attributes:
        number: Which of them it was; 0 while none came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self._bell, self.ringer = socket.socketpair()
        self._bell.setblocking(False)
        self.ringer.setblocking(False)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for `timeout` seconds at most, in the main thread; return whether to stop.

        Not for a lock: a signal that comes to another thread, or just before this one sleeps, wakes nobody
        there. The interpreter rings for each signal as it comes (`signal.set_wakeup_fd`).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            if select.select([self._bell], [], [], left)[0]:
                self._bell.recv(64)
        return self.is_set()

    def close(self) -> None:
        """Let go of the descriptors; there is no waiting after."""
        self._bell.close()
        self.ringer.close()


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

    rung = signal.set_wakeup_fd(stop.ringer.fileno(), warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, asked)
    try:
        yield stop
    finally:
        restore()
        signal.set_wakeup_fd(rung)
        stop.close()
