"""Noticing that a member of a group will get no assignment any more.

A rebalance is over within the session timeout: a coordinator waits no longer for a member that is
gone. A member that is still in one after that has lost its way, and a new client finds it again.
"""

from __future__ import annotations

import time
from typing import Any

from ..errors import BrokerUnavailableError
from ..options import Options
from ..topics import admin_client

__all__ = ("Standstill",)

#: Seconds a rebalance may take on top of the session timeout.
PATIENCE = 2.0


class Standstill:
    """Watches one member; used by the consumer's thread alone.

    Arguments:
        options: the group, and its session timeout.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._since: float | None = None

    def reset(self) -> None:
        """Begin to measure anew: all is well, or nothing is to be expected."""
        self._since = None

    def seconds(self, coordinator: Any) -> float:
        """Return for how long a rebalance has not come to its end; 0.0 unless that is too long.

        It isn't while the group's coordinator does not answer: the client goes on by itself when
        that is back.
        """
        now = time.monotonic()
        if coordinator.generation_if_stable() is not None and not coordinator.rejoining:
            self.reset()
            return 0.0
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited <= self._options.session_timeout + PATIENCE:
            return 0.0
        self.reset()
        return waited if self._answers() else 0.0

    def _answers(self) -> bool:
        try:
            with admin_client(self._options) as admin:
                admin.describe_groups([self._options.group_id])
        except BrokerUnavailableError:
            return False
        return True
