"""Which durable queues are bound to which exchange, known to every process.

A publisher may have to route a message to a queue that another process declared. So bindings are
records of a compacted topic: the key names queue, exchange and binding key, the value says of what
type the exchange is, and a tombstone takes a binding back. A publisher asks where the topic ends
before each message it must not lose, which costs one round trip, and reads only what is new.

A queue bound to the direct exchange of its own name by its own name (Celery's default, and
kombu's SimpleQueue) is not recorded: whoever publishes there has declared it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from typing import NamedTuple

from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from ..clients.consumers import consumer, read
from ..errors import KombuKafkaError, UnsupportedError
from ..options import Options
from ..publishing import producer
from . import routing
from .directory import directory

__all__ = ("BINDINGS_TOPIC", "Bindings", "bindings", "is_implied")

logger = logging.getLogger(__name__)

#: Where bindings lie.
BINDINGS_TOPIC = "kombu.bindings"
#: Seconds after which the bindings that messages nobody waits for are routed by are looked up again.
STALE_SECONDS = 5.0

_PARTITION = TopicPartition(BINDINGS_TOPIC, 0)


class Binding(NamedTuple):
    """A durable queue's binding."""

    queue: str
    exchange: str
    routing_key: str


def is_implied(kind: str, binding: Binding) -> bool:
    """Whether a binding goes without saying, so is not recorded."""
    return kind == routing.DIRECT and binding.queue == binding.exchange == binding.routing_key


class Bindings:
    """The bindings of one cluster.

    Arguments:
        options: the brokers.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._kinds: dict[Binding, str] = {}
        self._position = 0
        self._looked: float | None = None
        self._refreshing = False
        self._pid = os.getpid()

    def add(self, binding: Binding, kind: str) -> None:
        """Make a binding known; returns when every publisher will heed it.

        Raises:
            KombuKafkaError: it is not stored.
        """
        if is_implied(kind, binding) or self._known(current=True).get(binding) == kind:
            return
        directory(self._options).ensure(BINDINGS_TOPIC, 1, {"cleanup.policy": "compact"})
        self._write(binding, json.dumps({"type": kind}).encode())

    def remove(self, binding: Binding) -> None:
        """Take a binding back.

        Raises:
            KombuKafkaError: that is not stored.
        """
        if binding in self._known(current=True):
            self._write(binding, None)

    def remove_queue(self, queue: str) -> None:
        """Take all bindings of a queue back.

        Raises:
            KombuKafkaError: that is not stored.
        """
        for binding in [known for known in self._known(current=True) if known.queue == queue]:
            self._write(binding, None)

    def kind_of(self, exchange: str, *, current: bool) -> str | None:
        """Return an exchange's type as its bindings have it, or None if it has none."""
        for binding, kind in self._known(current=current).items():
            if binding.exchange == exchange:
                return kind
        return None

    def queues(self, exchange: str, routing_key: str, *, current: bool) -> set[str]:
        """Return the durable queues that a message is for.

        Arguments:
            exchange: where it is published.
            routing_key: with what.
            current: whether a binding made this very moment counts; otherwise one that is some
                seconds old may be missing, and nothing is waited for.

        Raises:
            BrokerUnavailableError: no broker answered within ``connect_timeout``.
        """
        return {
            binding.queue
            for binding, kind in self._known(current=current).items()
            if binding.exchange == exchange
            and routing.matches(kind, binding.routing_key, routing_key)
        }

    def _known(self, *, current: bool) -> dict[Binding, str]:
        if self._pid != os.getpid():  # a forked child: threads and locks are the parent's
            self._pid, self._lock, self._refreshing = os.getpid(), threading.Lock(), False
        if current or self._looked is None:
            return self._current()
        if time.monotonic() - self._looked > STALE_SECONDS and not self._refreshing:
            # Events come from event loops, which must go on when no broker answers.
            self._refreshing = True
            threading.Thread(target=self._refresh, name="kombu-kafka-bindings", daemon=True).start()
        return self._kinds

    def _refresh(self) -> None:
        try:
            self._current()
        except (KombuKafkaError, KafkaError) as exc:
            logger.debug("The bindings could not be looked up (%s).", exc)
        finally:
            self._looked, self._refreshing = time.monotonic(), False

    def _current(self) -> dict[Binding, str]:
        with self._lock:
            if directory(self._options).partitions(BINDINGS_TOPIC) is None:
                self._kinds, self._position = {}, 0
            else:
                ends = directory(self._options).ends(BINDINGS_TOPIC, [0])
                if ends is None:  # deleted since
                    directory(self._options).forget(BINDINGS_TOPIC)
                    self._kinds, self._position = {}, 0
                elif ends[_PARTITION] != self._position:
                    self._read(ends[_PARTITION])
            self._looked = time.monotonic()
            return self._kinds

    def _read(self, end: int) -> None:
        kinds = dict(self._kinds) if end > self._position else {}
        start = self._position if end > self._position else 0
        with consumer(self._options) as client:
            for records in read(client, {_PARTITION: (start, end)}, self._options.connect_timeout):
                for record in records:
                    _apply(kinds, record)
        self._kinds, self._position = kinds, end

    def _write(self, binding: Binding, value: bytes | None) -> None:
        producer.shared(self._options).publish(
            BINDINGS_TOPIC, value, key=json.dumps(binding).encode(), partition=0
        )


def _apply(kinds: dict[Binding, str], record: ConsumerRecord) -> None:
    try:
        queue, exchange, routing_key = json.loads(record.key)
        binding = Binding(str(queue), str(exchange), str(routing_key))
        if record.value is None:
            kinds.pop(binding, None)
        else:
            kind = json.loads(record.value)["type"]
            routing.require_type(exchange, kind)
            kinds[binding] = kind
    except (ValueError, TypeError, KeyError, UnsupportedError) as exc:
        logger.warning(
            "%s holds no binding at offset %d (%s): it is passed over.",
            BINDINGS_TOPIC, record.offset, exc,
        )  # fmt: skip


_lock = threading.Lock()
_known: dict[Options, Bindings] = {}


def bindings(options: Options) -> Bindings:
    """Return this process's view of the bindings on the cluster that `options` name."""
    with _lock:
        return _known.setdefault(options, Bindings(options))
