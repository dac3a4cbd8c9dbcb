"""How a client's connections begin: without a proxy, in time, and without leaving anything open."""

from __future__ import annotations

import ssl
import time
from typing import Any

from kafka.net import manager
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaSSLTransport

__all__ = ("DIRECT",)

#: The client's option `proxy_url`: by which kafka-python finds what opens its sockets.
DIRECT = "direct://"

#: Seconds that a broker has for a TLS handshake.
HANDSHAKE_SECONDS = 5.0


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


class _Secured(KafkaSSLTransport):
    """A TLS connection whose handshake ends: in time, and with a closed socket where it fails.

    kafka-python 3.0.12 waits for ever for a broker that takes connections and says nothing, as one does whose
    process stands still: whoever asked it first never got to the others.
    """

    async def handshake(self) -> None:
        """Agree on keys.

        Raises:
            KafkaTimeoutError: the broker did not answer in time.
            OSError: it refused, or is not the one it should be.
        """
        until = time.monotonic() + HANDSHAKE_SECONDS
        try:
            while True:
                try:
                    self._sock.do_handshake()
                except ssl.SSLWantReadError:
                    await self._net.wait_read(self._sock, until)
                except ssl.SSLWantWriteError:
                    await self._net.wait_write(self._sock, until)
                else:
                    return
        except BaseException:
            self._sock.close()
            raise


# By its name: no option of the client's says what secures a connection.
manager.KafkaSSLTransport = _Secured
