"""Queues that go with their consumer: remote control, events, replies, broadcast.

Such a queue has no topic. It is a set of bindings and, for each partition that messages for it can
lie in, the offset from which on they are its own: fixed when it is bound, so before the request
whose reply it waits for has left. What is declared belongs to the process, not to a connection:
Celery declares the queue of its results over one connection and consumes it over another.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from ..options import Options
from . import routing
from .directory import SEGMENT_BYTES, directory

__all__ = ("EXCHANGE_HEADER", "ROUTING_KEY_HEADER", "TransientQueue", "TransientQueues", "queues")

#: Record headers by which a reader knows what is for it.
EXCHANGE_HEADER = "amqp-exchange"
ROUTING_KEY_HEADER = "amqp-routing_key"


@dataclass(frozen=True)
class _Binding:
    kind: str
    topic: str
    routing_key: str
    partitions: tuple[int, ...]


@dataclass
class TransientQueue:
    """One queue.

    Attributes:
        name: its name.
        owner: the connection it goes with, or None (then it goes with its last consumer).
        positions: the offset of its next record, in each partition it reads.
        consumers: how many consume it in this process.
    """

    name: str
    owner: int | None = None
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    consumers: int = 0
    bindings: dict[tuple[str, str], _Binding] = field(default_factory=dict)

    def accepts(self, record: ConsumerRecord) -> bool:
        """Whether a record is for this queue, which has not had it yet."""
        position = self.positions.get(TopicPartition(record.topic, record.partition))
        if position is None or record.offset < position:
            return False
        routing_key = routing.header(record.headers, ROUTING_KEY_HEADER)
        return any(
            binding.topic == record.topic
            and routing.matches(binding.kind, binding.routing_key, routing_key)
            for binding in self.bindings.values()
        )


class TransientQueues:
    """This process's transient queues on one cluster.

    Arguments:
        options: the brokers, and the shape of topics that have to be made.

    Attributes:
        lock: held where a queue's positions or bindings are read or changed.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self.lock = threading.Lock()
        self._queues: dict[str, TransientQueue] = {}
        self._pid = os.getpid()

    def get(self, name: str) -> TransientQueue | None:
        """Return the queue of this name, or None."""
        if self._pid != os.getpid():
            # A forked child: the queues are its parent's, and so are the replies in them.
            self._pid, self.lock, self._queues = os.getpid(), threading.Lock(), {}
        return self._queues.get(name)

    def declare(self, name: str, owner: int | None) -> TransientQueue:
        """Return the queue of this name, made if there is none; replies come to it from now on."""
        queue = self.get(name)
        if queue is None:
            with self.lock:
                queue = self._queues.setdefault(name, TransientQueue(name, owner))
        if routing.is_reply_queue(name):
            self.bind(name, "", routing.DIRECT, name)
        return queue

    def bind(self, name: str, exchange: str, kind: str, routing_key: str) -> None:
        """Bind a declared queue: messages published from now on are its own.

        Raises:
            PublishError: the exchange's topic is missing and this client may not make it.
            BrokerUnavailableError: no broker answered within ``connect_timeout``.
        """
        queue = self.get(name)
        if queue is None or (exchange, routing_key) in queue.bindings:
            return
        topic = routing.exchange_topic(exchange)
        count = ensure_exchange(self._options, exchange, kind)
        partitions = routing.partitions_read(kind, routing_key, count)
        new = [n for n in partitions if TopicPartition(topic, n) not in queue.positions]
        ends = directory(self._options).ends(topic, new) if new else None
        with self.lock:
            queue.positions.update(ends or {})
            queue.bindings[exchange, routing_key] = _Binding(kind, topic, routing_key, partitions)

    def unbind(self, name: str, exchange: str, routing_key: str) -> None:
        """Take a binding back; partitions that no other binding needs are read no more."""
        queue = self.get(name)
        if queue is None:
            return
        with self.lock:
            queue.bindings.pop((exchange, routing_key), None)
            needed = {
                TopicPartition(binding.topic, number)
                for binding in queue.bindings.values()
                for number in binding.partitions
            }
            for partition in queue.positions.keys() - needed:
                del queue.positions[partition]

    def delete(self, name: str) -> None:
        """Forget a queue."""
        if self.get(name) is not None:
            with self.lock:
                self._queues.pop(name, None)

    def release(self, owner: int) -> None:
        """Forget the queues that go with a connection."""
        with self.lock:
            gone = [name for name, queue in self._queues.items() if queue.owner == owner]
            for name in gone:
                del self._queues[name]


def ensure_exchange(options: Options, exchange: str, kind: str) -> int:
    """Return the number of partitions of an exchange's topic, which is made if it is missing.

    Raises:
        PublishError: this client may not make it.
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """
    milliseconds = str(int(options.exchange_retention * 1000))
    return directory(options).ensure(
        routing.exchange_topic(exchange),
        1 if kind == routing.FANOUT else options.exchange_partitions,
        {
            "cleanup.policy": "delete",
            "retention.ms": milliseconds,
            "segment.ms": milliseconds,
            "segment.bytes": str(SEGMENT_BYTES),
        },
    )


_lock = threading.Lock()
_known: dict[Options, TransientQueues] = {}


def queues(options: Options) -> TransientQueues:
    """Return this process's transient queues on the cluster that `options` name."""
    with _lock:
        known = _known.get(options)
        if known is None:
            known = _known[options] = TransientQueues(options)
        return known
