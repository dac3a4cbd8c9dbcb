"""`/metrics` and `/health` over HTTP, for the exporter and for workers."""

from __future__ import annotations

import json
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scheduler.metrics_access import Access

__all__ = ["CONTENT_TYPE", "Health", "MetricsServer"]

logger = logging.getLogger(__name__)

#: Prometheus's text format.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Seconds that a client may keep a thread without sending or taking anything.
CLIENT_SECONDS = 10

Health = tuple[bool, dict[str, Any]]

_PAGE = b"""<!doctype html><title>metrics</title>
<p><a href="metrics">metrics</a>, <a href="health">health</a></p>
"""


class MetricsServer:
    """Serves what two functions return; they must answer from memory.

    Arguments:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        metrics: returns the page of metrics, in parts.
        health: returns whether all is well, and what is to be said about it.
        access: returns who may ask, and over what; everybody in the clear by default.

    Raises:
        OSError: the address can't be listened on.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Callable[[], Sequence[bytes]],
        health: Callable[[], Health],
        access: Callable[[], Access] = Access,
    ) -> None:

        class Handler(BaseHTTPRequestHandler):
            timeout = CLIENT_SECONDS
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if not access().admits(self.headers.get("Authorization")):
                    self._answer(401, "text/plain; charset=utf-8", b"A password is needed.\n")
                    return
                path = self.path.partition("?")[0].rstrip("/") or "/"
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE, *metrics())
                elif path in ("/health", "/-/healthy"):
                    well, said = health()
                    body = json.dumps({"healthy": well, **said}).encode() + b"\n"
                    self._answer(200 if well else 503, "application/json", body)
                elif path == "/":
                    self._answer(200, "text/html; charset=utf-8", _PAGE)
                else:
                    self._answer(404, "text/plain; charset=utf-8", b"Ask for /metrics.\n")

            def _answer(self, status: int, kind: str, *body: bytes) -> None:
                self.send_response(status)
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="metrics"')
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(sum(map(len, body))))
                self.end_headers()
                for part in body:
                    self.wfile.write(part)

            def log_message(self, format: str, *args: Any) -> None:
                logger.debug(format, *args)

        self._server = _Server((host, port), Handler)
        self._server.access = access
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics-http", daemon=True,
            kwargs={"poll_interval": 0.1},
        )  # fmt: skip
        _servers.add(self)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def leave(self) -> None:
        """Let go of the socket in a forked child, or it would keep the port from a successor."""
        self._server.socket.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    access: Callable[[], Access] = Access

    def get_request(self) -> tuple[Any, Any]:
        """Take a connection; its handshake is its own thread's: a slow client holds up nobody."""
        connection, address = super().get_request()
        tls = self.access().tls
        if tls is not None:
            connection = tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nobody's fault."""
        logger.debug("A client of the metrics at %s went away.", client_address, exc_info=True)


_servers: weakref.WeakSet[MetricsServer] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for server in list(_servers):
        server.leave()
    _servers.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
