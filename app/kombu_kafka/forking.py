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
from functools import cache

__all__ = ("make_forks_safe",)


_forking = threading.Lock()
_collects = True
_handlers: list[logging.Handler] = []


@cache
def make_forks_safe() -> None:
    """Have every child that this process forks from now on free of what its threads were at.

    The parent does not freeze what it has: `gc.unfreeze` makes all garbage old without counting it, so
    that a process which forks often would next to never collect, and keep the sockets that lie in it open.
    """
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )


def _before() -> None:
    global _collects, _handlers
    _forking.acquire()
    _collects = gc.isenabled()
    gc.disable()
    known = logging._handlerList  # type: ignore[attr-defined]  # as `logging.shutdown` finds them
    _handlers = [handler for each in known if (handler := each()) is not None]
    for handler in _handlers:
        handler.acquire()


def _after_in_parent() -> None:
    for handler in _handlers:
        handler.release()
    _after()


def _after_in_child() -> None:
    gc.freeze()
    _after()  # `logging` has made the handlers' locks anew


def _after() -> None:
    _handlers.clear()
    if _collects:
        gc.enable()
    _forking.release()
