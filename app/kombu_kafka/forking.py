"""What a forked child must not touch: garbage of its parent's that is yet to be collected.

This transport has threads, and Celery's prefork pool forks beside them whenever a child is replaced. A
connection that breaks leaves coroutines and clients behind in cycles. Were they collected in the child,
their last lines would run there, and wait for ever for a lock that some thread, which the child does not
have, held at that moment. So the child's collector never sees what was there before it.
"""

from __future__ import annotations

import gc
import os
import threading
from functools import cache

__all__ = ("leave_garbage_to_the_parent",)


_forking = threading.Lock()
_collects = True


@cache
def leave_garbage_to_the_parent() -> None:
    """Have children that this process forks from now on collect only what is their own.

    Nothing is collected from just before the fork until the child has frozen what it was given. The parent
    does not freeze: `gc.unfreeze` makes all garbage old without counting it, so that a process which forks
    often would next to never collect, and keep the sockets that lie in it open.
    """
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )


def _before_fork() -> None:
    global _collects
    _forking.acquire()
    _collects = gc.isenabled()
    gc.disable()


def _after_fork() -> None:
    if _collects:
        gc.enable()
    _forking.release()


def _after_fork_in_child() -> None:
    gc.freeze()
    _after_fork()
