"""The threads that listen to Celery: events as they come, the pools' sizes now and then."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from celery import Celery

__all__ = ["EventListener"]

logger = logging.getLogger(__name__)

#: Seconds after which listening is tried again.
RETRY_SECONDS = 5.0
#: Seconds between two questions to the workers about their pools.
ASK_EVERY = 60.0
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
    """

    def __init__(
        self,
        app: Celery,
        handle: Callable[[Mapping[str, Any]], object],
        pool_sizes: Callable[[Mapping[str, int]], object],
    ) -> None:
        self._app = app
        self._handle = handle
        self._pool_sizes = pool_sizes
        self._stop = threading.Event()
        self._ask_now = threading.Event()
        self._receiver: Any = None
        self._last_warning = -WARN_EVERY
        self._threads = [
            threading.Thread(target=self._listen, name="exporter-events", daemon=True),
            threading.Thread(target=self._ask, name="exporter-pools", daemon=True),
        ]
        #: Whether events are listened to now.
        self.up = False

    def start(self) -> None:
        """Begin to listen."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._ask_now.set()
        if self._receiver is not None:
            self._receiver.should_stop = True
        for thread in self._threads:
            if thread.is_alive():
                thread.join(RETRY_SECONDS)

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
            self._ask_now.set()

    def _ask(self) -> None:
        while not self._stop.is_set():
            self._ask_now.clear()
            if self.up:
                with contextlib.suppress(Exception):
                    answers = self._app.control.inspect(timeout=ASK_SECONDS).stats() or {}
                    self._pool_sizes({name: _size(stats) for name, stats in answers.items()})
            self._ask_now.wait(ASK_EVERY if self.up else RETRY_SECONDS)

    def _warn(self, exc: Exception) -> None:
        now = time.monotonic()
        if now - self._last_warning >= WARN_EVERY:
            self._last_warning = now
            logger.warning("Celery's events can't be listened to (%s); trying again.", exc)


def _size(stats: Mapping[str, Any]) -> int:
    return int(stats.get("pool", {}).get("max-concurrency") or 0)
