"""A process's new connection takes over from its old one only when that has let go.

Celery makes a new connection while tasks of the old one still run; what they began must be
settled before the successor begins, or it would begin it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable

from ..errors import ConsumerFailedError

__all__ = ("Succession",)

#: Seconds a new connection waits for what an earlier one of the same process has begun.
CLAIM_SECONDS = 300.0

_holders: dict[Hashable, Succession] = {}
_holders_lock = threading.Lock()


class Succession:
    """What one consumer holds of its process's."""

    def __init__(self) -> None:
        self._held: set[Hashable] = set()
        self._waiting_since: dict[Hashable, float] = {}

    def claim(self, what: Hashable, name: str) -> bool:
        """Take `what` if no earlier consumer of this process has it.

        Arguments:
            what: names it.
            name: what it is called in an error.

        Raises:
            ConsumerFailedError: it is claimed in vain for too long.
        """
        with _holders_lock:
            if _holders.setdefault(what, self) is self:
                self._held.add(what)
                self._waiting_since.pop(what, None)
                return True
        since = self._waiting_since.setdefault(what, time.monotonic())
        if time.monotonic() - since > CLAIM_SECONDS:
            raise ConsumerFailedError(
                f"Tasks of {name} begun over an earlier connection were not finished within "
                f"{CLAIM_SECONDS:g} seconds: start this process again; they will run again."
            )
        return False

    def release(self, what: Hashable) -> None:
        """Let a successor have `what`."""
        with _holders_lock:
            if _holders.get(what) is self:
                del _holders[what]
        self._held.discard(what)

    def release_all(self) -> None:
        """Let a successor have everything."""
        for what in tuple(self._held):
            self.release(what)
