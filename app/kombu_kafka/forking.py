"""What a fork must not cut in two: other threads' logging, and garbage that is yet to be collected.

This transport has threads, and Celery's prefork pool forks beside them whenever a child is replaced. The
child has none of them, and would wait for ever for a lock that one held at that moment:

- that of a log's stream: `logging` renews its own locks in a child, but not the one inside a buffered
  file (https://bugs.python.org/issue6721). A child that was forked while another thread wrote a line ran
  its first task, and stood still when it was to log the result;
- that of a coroutine or a client that broke and lies in a cycle, whose last lines run where it is collected.

So a fork waits for lines that are being written, and a child never collects what was there before it.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from contextlib import suppress
from functools import cache

__all__ = ("make_forks_safe",)


#: Seconds for which a fork waits: in that time a line is written, unless whoever reads the log stands still.
WAIT_SECONDS = 2.0

_forking = threading.Lock()
_collects = True
_locks: list[threading.RLock] = []


@cache
def make_forks_safe() -> None:
    """Have every child that this process forks from now on free of what its threads were at.

    The parent does not freeze what it has: `gc.unfreeze` makes all garbage old without counting it, so
    that a process which forks often would next to never collect, and keep the sockets that lie in it open.
    """
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)


def _before() -> None:
    global _collects
    _forking.acquire()
    _collects = gc.isenabled()
    gc.disable()
    deadline = time.monotonic() + WAIT_SECONDS
    known = logging._handlerList  # type: ignore[attr-defined]  # as `logging.shutdown` finds them
    for handler in [found for each in known if (found := each()) is not None]:
        # With a limit, as a handler may hold its lock and wait for another's (MemoryHandler).
        left = max(0.0, deadline - time.monotonic())
        if handler.lock is not None and handler.lock.acquire(timeout=left):
            _locks.append(handler.lock)


def _after_in_child() -> None:
    gc.freeze()
    _after()


def _after() -> None:
    while _locks:
        with suppress(RuntimeError):  # in the child `logging` has made it anew
            _locks.pop().release()
    if _collects:
        gc.enable()
    _forking.release()
