"""How long a member of a group may count on being one.

A coordinator drops a member that it hears nothing of for the session timeout. So a member that was
answered may count on its membership until the session timeout after it *asked*: not after it read
the answer, which may have waited in a socket while the process was frozen.
"""

from __future__ import annotations

import time
from typing import Any

from kafka.errors import FencedInstanceIdError, KafkaError, RebalanceInProgressError

__all__ = ("Lease",)


class Lease:
    """Follows one membership.

    Arguments:
        coordinator: the client's, of that group.
        seconds: the session timeout.
    """

    def __init__(self, coordinator: Any, seconds: float) -> None:
        self._coordinator = coordinator
        self._seconds = seconds
        self._verified = 0.0
        #: The generation that was verified last, or None.
        self.generation: Any = None

    @property
    def until(self) -> float:
        """The `time.monotonic` up to which the membership is sure."""
        return self._verified + self._seconds

    def renew(self) -> bool:
        """Note what the coordinator said last; of a new membership it is asked.

        Returns:
            Whether the membership was verified since it last began.

        Raises:
            FencedInstanceIdError: another process has taken it over.
        """
        coordinator = self._coordinator
        with coordinator._lock:
            generation = coordinator.generation_if_stable()
            silent = not (coordinator._heartbeat_enabled or coordinator.rejoining)
            fenced = generation is not None and silent
            sent, received = coordinator.heartbeat.last_send, coordinator.heartbeat.last_receive
        if fenced:
            raise FencedInstanceIdError
        if generation is None:
            return False
        if generation is not self.generation:
            # A join may have been answered long before the answer was read.
            if not self.verify():
                return False
            self.generation = generation
        elif received >= sent:
            self._verified = max(self._verified, sent)
        return True

    def verify(self) -> bool:
        """Ask the coordinator now.

        Raises:
            FencedInstanceIdError: another process has taken it over.
        """
        asked = time.monotonic()
        try:
            self._coordinator._net.run(self._coordinator._send_heartbeat_request)
        except RebalanceInProgressError:
            pass  # a member like all others: it is asked to join anew
        except FencedInstanceIdError:
            raise
        except KafkaError:
            return False
        self._verified = max(self._verified, asked)
        return True
