"""What is asked less often, or takes longer: dead letters, delayed messages, certificates.

Each has its own turn in one thread, so that none of them holds up the look at lag.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from kafka.errors import KafkaError

from kombu_kafka.delay.backlog import LevelBacklog, backlog
from kombu_kafka.errors import KombuKafkaError
from kombu_kafka.options import Options
from scheduler.dlq.statistics import Snapshot, Statistics
from scheduler.exporter import certificates

__all__ = ["SlowReader"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at what waits for its time.
DELAYS_EVERY = 30.0
#: Seconds between two looks at certificates.
CERTIFICATES_EVERY = 300.0
#: Seconds that the thread has to end.
STOP_SECONDS = 5.0
#: Seconds between two warnings.
WARN_EVERY = 60.0


class Shown(Protocol):
    """Where the findings go."""

    def letters(self, found: Snapshot) -> None:
        """Take which dead letters there are, and what became of them."""

    def delays(self, levels: list[LevelBacklog]) -> None:
        """Take what waits in the delay topic."""

    def certificates(self, ends: Mapping[str, float]) -> None:
        """Take until when each certificate is valid, by server or file."""


class SlowReader:
    """Asks, for as long as it is let, in a thread of its own.

    Arguments:
        options: the brokers, the dead letter topic, the delay topic.
        shown: where the findings go.
        interval: seconds between two looks at the dead letters.
        certificate_files: certificates that are looked at besides the brokers'.
        certificate_servers: what else shows one: ``host:port`` of each.
    """

    def __init__(
        self,
        options: Options,
        shown: Shown,
        interval: float,
        certificate_files: Iterable[str] = (),
        certificate_servers: Iterable[str] = (),
    ) -> None:
        self._options = options
        self._shown = shown
        self._certificate_files = tuple(dict.fromkeys(certificate_files))
        self._certificate_servers = tuple(dict.fromkeys(certificate_servers))
        self._ends: dict[str, float] = {}
        self._statistics: Statistics | None = None
        self._stop = threading.Event()
        self._last_warning = -WARN_EVERY
        self._due: dict[Callable[[], None], float] = {}
        self._every: dict[Callable[[], None], float] = {
            self._look_at_letters: interval,
            self._look_at_delays: max(interval, DELAYS_EVERY),
            self._look_at_certificates: CERTIFICATES_EVERY,
        }
        self._thread = threading.Thread(target=self._run, name="exporter-slow", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            for look, every in self._every.items():
                if self._stop.is_set() or time.monotonic() < self._due.get(look, 0.0):
                    continue
                self._due[look] = time.monotonic() + every
                try:
                    look()
                except Exception as exc:  # noqa: BLE001 (whatever it was, the next look may work)
                    self._due[look] = time.monotonic() + min(every, DELAYS_EVERY)
                    self._warn(exc)
            self._stop.wait(0.5)
        self._forget()

    def _look_at_letters(self) -> None:
        if self._statistics is None:
            self._statistics = Statistics(self._options)
        self._shown.letters(self._statistics.snapshot())

    def _look_at_delays(self) -> None:
        self._shown.delays(backlog(self._options))

    def _look_at_certificates(self) -> None:
        # What can't be reached now keeps what it showed: its certificate grows no younger.
        try:
            self._ends |= certificates.of_servers(self._certificate_servers)
            if self._options.security_protocol.endswith("SSL"):
                context = self._options.ssl_context()
                self._ends |= certificates.of_servers(self._options.hosts, context)
            self._ends |= certificates.of_files(self._certificate_files, self._warn)
        finally:
            self._shown.certificates(self._ends)

    def _forget(self) -> None:
        statistics, self._statistics = self._statistics, None
        if statistics is not None:
            with contextlib.suppress(Exception):
                statistics.close()

    def _warn(self, exc: Exception) -> None:
        now = time.monotonic()
        if now - self._last_warning < WARN_EVERY:
            return
        self._last_warning = now
        known = isinstance(exc, KombuKafkaError | KafkaError)
        logger.warning(
            "Something could not be read, and is tried again: %s", exc, exc_info=not known
        )
