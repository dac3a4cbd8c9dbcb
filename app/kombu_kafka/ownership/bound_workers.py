"""Whether partitions that a worker would share with its group are bound to other workers.

Both kinds on one topic would run its tasks twice. Each announces itself first and looks then, so one
of them sees the other, whatever the timing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection

from ..errors import NotOwnerError
from ..options import Options
from .presence import owners_of_topics

__all__ = ("BoundWorkers",)

#: Seconds between two looks at who is in the way.
LOOK_EVERY = 0.5
#: Seconds that an owner is given to vanish on top of the session timeout.
PATIENCE = 2.0


class BoundWorkers:
    """Looks out for them on behalf of one member of a group.

    Arguments:
        options: group, worker's name, session timeout.
        warn: logs a warning, unless one was logged a moment ago.
    """

    def __init__(self, options: Options, warn: Callable[..., object]) -> None:
        self._options = options
        self._warn = warn
        #: Topics of which it is not known since the last join whether partitions are bound.
        self._unannounced: frozenset[str] = frozenset()
        #: Since when partitions of new topics are bound to others, and when that was seen last.
        self._waiting: tuple[float, float] | None = None

    def gone(self, topics: Collection[str]) -> bool:
        """Say whether no partition is bound to another worker; a dead one is gone in a while.

        Raises:
            NotOwnerError: one is, and that worker lives.
        """
        now = time.monotonic()
        since, looked = self._waiting or (now, -math.inf)
        if now - looked < LOOK_EVERY:
            return False
        fault = self._fault(topics)
        if fault is None:
            self._waiting = None
            return True
        self._waiting = since, time.monotonic()
        patience = self._options.session_timeout + PATIENCE
        if now - since > patience:
            raise NotOwnerError(fault)
        self._warn("Waiting, in case it is dead, for at most %g seconds: %s", patience, fault)
        return False

    def announce(self, topics: Collection[str]) -> None:
        """This worker is about to join for these topics: `check` looks once it has."""
        self._unannounced |= frozenset(topics)

    def check(self, joined: Collection[str]) -> None:
        """Look again, now that the group knows this worker by the topics `joined`.

        Raises:
            NotOwnerError: a partition of what was announced is bound to another worker.
        """
        if self._unannounced and self._unannounced <= frozenset(joined):
            fault = self._fault(self._unannounced)
            if fault is not None:
                raise NotOwnerError(fault)
            self._unannounced = frozenset()

    def _fault(self, topics: Collection[str]) -> str | None:
        owners = owners_of_topics(self._options, topics)
        if not owners:
            return None
        whose = ", ".join(f"{name} by {owner}" for name, owner in sorted(owners.items()))
        me = self._options.worker_name or self._options.client_id
        return (
            f"This worker, {me}, would share {', '.join(sorted(topics))} in the group "
            f"{self._options.group_id}, but partitions are owned by workers they are bound to "
            f"({whose}): bind all of a topic's workers to partitions (CUSTOM_PARTITION), or none."
        )
