"""The thread that forwards delayed messages when they are due (see docs/decisions/0008-later.md).

Every consuming transport has one; of a topic's dispatchers one is at work, the others stand by.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time

from kafka.errors import KafkaError

from ..errors import ConfigurationError, KombuKafkaError
from ..options import Options
from . import topics as delay_topics
from .statistics import Statistics
from .watch import RETRY_SECONDS, Watch

__all__ = ("Dispatcher",)

logger = logging.getLogger(__name__)

#: Seconds between two looks at a setting that is wrong.
MISCONFIGURED_SECONDS = 30.0
#: Seconds between two warnings about the same trouble.
WARN_EVERY = 10.0
#: Seconds that the end of the process waits for the thread.
JOIN_SECONDS = 5.0


class Dispatcher:
    """Forwards what is due, while it owns the delay topic.

    Arguments:
        options: brokers, group and topics.

    Attributes:
        statistics: what it has done.
    """

    def __init__(self, options: Options) -> None:
        self.statistics = Statistics()
        self._options = options
        self._stop, self._wake = threading.Event(), threading.Event()
        self._pid = os.getpid()
        self._last_warning = 0.0
        self._missing: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="kombu-kafka-delay", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        atexit.register(self.join)
        self._thread.start()

    def close(self) -> None:
        """Have it end; returns at once."""
        self._stop.set()
        self._wake.set()

    def join(self) -> None:
        """End it, so that another takes over at once and not after the session timeout."""
        if os.getpid() != self._pid:
            return  # a forked child: the thread and its sockets are the parent's
        self.close()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)
        atexit.unregister(self.join)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                delay_topics.ensure(self._options)
                Watch(self._options, self.statistics, self._stop, self._missing, self._wake).run()
            except ConfigurationError as exc:
                logger.error("Delayed messages are not forwarded by this process: %s", exc)
                self._stop.wait(MISCONFIGURED_SECONDS)
            except (KafkaError, KombuKafkaError) as exc:
                self._warn("Delayed messages wait, as Kafka does not answer (%s); going on.", exc)
                self._stop.wait(RETRY_SECONDS)
            except Exception:
                logger.exception("Forwarding delayed messages failed; beginning anew.")
                self._stop.wait(RETRY_SECONDS)
            finally:
                self.statistics.active = False

    def _warn(self, message: str, *args: object) -> None:
        now = time.monotonic()
        if now - self._last_warning >= WARN_EVERY:
            self._last_warning = now
            logger.warning(message, *args)
