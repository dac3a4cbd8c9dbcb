"""What a forked child must not touch: garbage of its parent's that is yet to be collected.

This transport has threads, and Celery's prefork pool forks beside them whenever a child is replaced. A
connection that breaks leaves coroutines and clients behind in cycles. Were they collected in the child,
their last lines would run there, and wait for ever for a lock that some thread, which the child does not
have, held at that moment. So the child's collector never sees what was there before it.
"""

from __future__ import annotations

import gc
import os
from functools import cache

__all__ = ("leave_garbage_to_the_parent",)


_is_child = False


@cache
def leave_garbage_to_the_parent() -> None:
    """Have children that this process forks from now on collect only what is their own.

    As the documentation of `gc.freeze` advises; it also keeps the memory shared.
    """
    os.register_at_fork(
        before=gc.freeze, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )


def _after_fork_in_parent() -> None:
    if not _is_child:  # then what its own parent left stays where it is
        gc.unfreeze()


def _after_fork_in_child() -> None:
    global _is_child
    _is_child = True
