"""How a client's connections begin: without a proxy, and without leaving anything open."""

from __future__ import annotations

from typing import Any

from kafka.net.inet import KafkaNetSocket

__all__ = ("DIRECT",)

#: The client's option `proxy_url`: by which kafka-python finds what opens its sockets.
DIRECT = "direct://"


class _Direct(KafkaNetSocket):
    """A connection to the broker itself, closed at once when it fails.

    kafka-python 3.0.12 leaves that to the collector of garbage: a process whose brokers were down for a
    while held hundreds of sockets.
    """

    SCHEMES = ("direct",)
    _socket: Any = None

    def socket(self, *description: Any) -> Any:
        """Return a new socket, which is closed if it is not connected."""
        self._socket = super().socket(*description)
        return self._socket

    async def connect(self, *told: Any, **options: Any) -> Any:
        """Return a socket that is connected.

        Raises:
            KafkaConnectionError: the broker refused.
            KafkaTimeoutError: it did not answer in time.
            OSError: there are no sockets (any more, or of its address's family).
        """
        self._socket = None
        try:
            return await super().connect(*told, **options)
        except BaseException:
            if self._socket is not None:
                self._socket.close()
            raise
