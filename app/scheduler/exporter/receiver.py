"""The threads that listen to Celery: events as they come, the workers' answers about their pools."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import Any

from celery import Celery

from scheduler.exporter.pools import PoolAsker

__all__ = ["EventListener"]

logger = logging.getLogger(__name__)

#: Seconds after which listening is tried again.
RETRY_SECONDS = 5.0
#: Seconds that the workers have to answer.
ASK_SECONDS = 2.0
#: Seconds between two warnings about the same trouble.
WARN_EVERY = 60.0


class EventListener:
    """Listens for as long as it is let, whatever happens to the connection.

    Arguments:
        app: the Celery app whose events are listened to.
        handle: called with each event.
        pool_sizes: called with the workers' pool sizes.
        unsized: returns the workers that are up and of whose pools nothing is known.
    """

    def __init__(
        self,
        app: Celery,
        handle: Callable[[Mapping[str, Any]], object],
        pool_sizes: Callable[[Mapping[str, int]], object],
        unsized: Callable[[], Set[str]],
    ) -> None:
        self._app = app
        self._handle = handle
        self._stop = threading.Event()
        self._receiver: Any = None
        self._last_warning = -WARN_EVERY
        self._thread = threading.Thread(target=self._listen, name="exporter-events", daemon=True)
        self._pools = PoolAsker(self._ask_pools, pool_sizes, unsized)
        #: Whether events are listened to now.
        self.up = False

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self._pools.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._receiver is not None:
            self._receiver.should_stop = True
        if self._thread.is_alive():
            self._thread.join(RETRY_SECONDS)
        self._pools.stop()

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                with self._app.connection_for_read() as connection:
                    self._receiver = self._make_receiver(connection)
                    self._receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception as exc:  # noqa: BLE001 (whatever it was, it is tried again)
                self._warn(exc)
            self.up = False
            self._stop.wait(RETRY_SECONDS)

    def _make_receiver(self, connection: Any) -> Any:
        receiver = self._app.events.Receiver(connection, handlers={"*": self._heard})
        receiver.should_stop = self._stop.is_set()
        # Times are compared with each other: all in the senders' Unix time, no zone put on top.
        receiver.event_from_message = partial(receiver.event_from_message, localize=False)
        receiver.wakeup_workers = self._wake_workers
        ready = receiver.on_consume_ready

        def on_consume_ready(*args: Any, **kwargs: Any) -> None:
            ready(*args, **kwargs)
            self.up = True
            logger.info("Listening to Celery's events.")

        def on_connection_error(exc: Exception, interval: float) -> None:
            self.up = False
            self._warn(exc)

        receiver.on_consume_ready = on_consume_ready
        receiver.on_connection_error = on_connection_error
        return receiver

    def _wake_workers(self, **_: Any) -> None:
        """Ask for heartbeats now; without them, the next ones come in some seconds."""
        with contextlib.suppress(Exception):
            self._app.control.broadcast("heartbeat")

    def _heard(self, event: Mapping[str, Any]) -> None:
        self._handle(event)
        if event.get("type") == "worker-online":
            self._pools.ask_now()

    def _ask_pools(self) -> dict[str, int]:
        if not self.up:
            return {}
        answers = self._app.control.inspect(timeout=ASK_SECONDS).stats() or {}
        return {name: _size(stats) for name, stats in answers.items()}

    def _warn(self, exc: Exception) -> None:
        now = time.monotonic()
        if now - self._last_warning >= WARN_EVERY:
            self._last_warning = now
            logger.warning("Celery's events can't be listened to (%s); trying again.", exc)


def _size(stats: Mapping[str, Any]) -> int:
    return int(stats.get("pool", {}).get("max-concurrency") or 0)
