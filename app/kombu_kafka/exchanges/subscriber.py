"""The thread that reads what is published to exchanges, for a connection's transient queues.

A consumer without a group: it begins where each queue's own messages begin, commits nothing, and
hands over what a queue's bindings ask for, judged by headers before anything is decoded. Losing the
brokers is weather here too: it goes on where it stood, and nothing is raised into the event loop.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Container, Iterable
from itertools import count

from kafka import KafkaConsumer
from kafka.errors import CorruptRecordError, KafkaError
from kafka.structs import TopicPartition

from ..clients.consumers import new_consumer, unreadable
from ..clients.fetching import hold, poll, wait
from ..clients.handshake import require_access, why
from ..consuming.inbox import Delivery
from ..errors import KombuKafkaError
from ..options import Options
from ..wakeup import Wakeup
from .directory import directory
from .transients import TransientQueue, queues

__all__ = ("Subscriber", "is_transient_tag")

logger = logging.getLogger(__name__)

#: Seconds to wait when too much was read and not taken.
FULL_SECONDS = 0.1
#: Milliseconds a broker holds a request that nothing answers: as long may a queue wait that is
#: added while the thread reads for others.
FETCH_MAX_WAIT_MS = 200
#: The same once no queue was added or removed for so many seconds: no more are expected.
SETTLED_FETCH_MAX_WAIT_MS = 2000
SETTLED_SECONDS = 20.0
#: Seconds that the thread stays connected without a queue: a second request often follows a first.
LINGER_SECONDS = 5.0
#: Seconds between two attempts after the brokers could not be reached.
RETRY_SECONDS = 0.5
#: Seconds between two warnings about the same trouble.
WARN_EVERY = 10.0
#: Seconds for the thread to end when its connection closes.
JOIN_SECONDS = 5.0

_tags = count(1)


def is_transient_tag(tag: int) -> bool:
    """Whether a delivery tag names a message of a transient queue."""
    return tag < 0


class Subscriber:
    """What a connection's transient queues have to read.

    Arguments:
        options: the brokers; ``max_buffered`` records are held before reading pauses.
        wakeup: set when there is something to take.
    """

    def __init__(self, options: Options, wakeup: Wakeup) -> None:
        self._options = options
        self._wakeup = wakeup
        # The queues are the process's; whoever binds one does it under the same lock.
        self._lock = queues(options).lock
        self._queues: dict[str, TransientQueue] = {}
        self._buffer: deque[tuple[str, Delivery]] = deque()
        self._in_flight: dict[int, tuple[str, Delivery]] = {}
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._next: dict[TopicPartition, int] = {}
        #: When other partitions were to be read than before.
        self._assigned = 0.0
        self._last_warning = 0.0
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None

    # The connection's side

    def add(self, queue: TransientQueue) -> None:
        """Begin to read for a queue, where its own messages begin; returns at once."""
        with self._lock:
            self._queues[queue.name] = queue
        self.warm()

    def warm(self) -> None:
        """Connect, since a queue will be read soon: while it is bound and a request goes out."""
        with self._lock:
            self._changed.set()
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="kombu-kafka-subscriber", daemon=True
                )
                self._thread.start()

    def remove(self, name: str) -> None:
        """Read for a queue no more; what was read and not handed out is the queue's again."""
        with self._lock:
            queue = self._queues.pop(name, None)
            if queue is None:
                return
            for owner, delivery in self._buffer:
                position = queue.positions.get(delivery.partition)
                if owner == name and position is not None:
                    offset = min(position, delivery.record.offset)
                    queue.positions[delivery.partition] = offset
            self._buffer = deque(entry for entry in self._buffer if entry[0] != name)
        self._changed.set()

    def take(self, names: Container[str]) -> tuple[str, Delivery] | None:
        """Return the next message of these queues, with its queue's name; None if there is none."""
        with self._lock:
            return self._take(names)

    def _take(self, names: Container[str]) -> tuple[str, Delivery] | None:
        for index, (name, delivery) in enumerate(self._buffer):
            if name in names:
                del self._buffer[index]
                self._in_flight[delivery.tag] = name, delivery
                return name, delivery
        return None

    def take_now(self, name: str) -> tuple[str, Delivery] | None:
        """Return the queue's next message; None once it is sure that none was published."""
        with self._lock:
            positions = dict(self._queues[name].positions)
        ends: dict[TopicPartition, int] = {}
        for topic in {partition.topic for partition in positions}:
            numbers = [partition.partition for partition in positions if partition.topic == topic]
            ends.update(directory(self._options).ends(topic, numbers) or {})
        deadline = time.monotonic() + self._options.connect_timeout
        while True:
            with self._lock:
                taken = self._take((name,))
                queue = self._queues.get(name)
                if taken is not None or queue is None or time.monotonic() > deadline:
                    return taken
                now = queue.positions
                if all(now.get(partition, end) >= end for partition, end in ends.items()):
                    return None
            time.sleep(0.005)

    def find(self, tag: int) -> Delivery | None:
        """Return the message with this tag that is not acknowledged, or None."""
        with self._lock:
            return self._in_flight.get(tag, ("", None))[1]

    def settle(self, tag: int) -> bool:
        """Forget a message: it was copied from its topic, where there is nothing to acknowledge."""
        with self._lock:
            return self._in_flight.pop(tag, None) is not None

    def requeue(self, tag: int) -> bool:
        """Have a message handed out again; False if there is no such message."""
        with self._lock:
            name, delivery = self._in_flight.pop(tag, ("", None))
            if delivery is None:
                return False
            again = Delivery(delivery.record, redelivered=True, tag=-next(_tags))
            self._buffer.appendleft((name, again))
        self._wakeup.set()
        return True

    def close(self) -> None:
        """End the thread and its connections."""
        if os.getpid() != self._pid:
            return  # a forked child: the thread and its sockets are the parent's
        self._stop.set()
        self._changed.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)

    # The thread

    def _run(self) -> None:
        client: KafkaConsumer | None = None
        idle_since = time.monotonic()
        wanted: dict[TopicPartition, int] = {}
        while not self._stop.is_set():
            self._changed.clear()
            wanted = self._wanted()
            if wanted:
                idle_since = time.monotonic()
            elif self._ends(time.monotonic() - idle_since):
                break
            try:
                client = client or self._connect()
                if wanted:
                    self._read(client, wanted)
                else:
                    self._changed.wait(LINGER_SECONDS)
            except (KafkaError, KombuKafkaError) as exc:
                self._warn(wanted, exc)
                self._stop.wait(RETRY_SECONDS)
            except Exception:
                logger.exception("Reading exchanges failed; connecting anew.")
                self._disconnect(client)
                client = None
                self._stop.wait(RETRY_SECONDS)
        self._disconnect(client)

    def _ends(self, idle: float) -> bool:
        """Whether the thread ends, having had nothing to do for so many seconds."""
        with self._lock:
            if idle < LINGER_SECONDS or self._queues:
                return False
            self._thread = None
            return True

    def _wanted(self) -> dict[TopicPartition, int]:
        """The partitions to read, each from the offset that the earliest queue is at."""
        wanted: dict[TopicPartition, int] = {}
        with self._lock:
            for queue in self._queues.values():
                for partition, offset in queue.positions.items():
                    wanted[partition] = min(offset, wanted.get(partition, offset))
        return wanted

    def _connect(self) -> KafkaConsumer:
        self._next.clear()
        require_access(self._options)
        return new_consumer(
            self._options,
            isolation_level="read_uncommitted",  # exchanges know no transactions
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
        )

    def _disconnect(self, client: KafkaConsumer | None) -> None:
        if client is not None:
            client.close(autocommit=False, timeout_ms=1000)

    def _read(self, client: KafkaConsumer, wanted: dict[TopicPartition, int]) -> None:
        if client.assignment() != wanted.keys():
            client.assign(list(wanted))
            self._assigned = time.monotonic()
            for partition in self._next.keys() - wanted.keys():
                del self._next[partition]
        for partition, offset in wanted.items():
            if self._next.get(partition, offset + 1) > offset:
                client.seek(partition, offset)
                self._next[partition] = offset
        if len(self._buffer) >= self._options.max_buffered:
            self._stop.wait(FULL_SECONDS)
            return
        longest = hold(client, self._patience())
        try:
            fetched = poll(client, timeout_ms=0)
        except CorruptRecordError as exc:
            self._pass_over(client, exc)
            return
        found = False
        with self._lock:
            for partition, records in fetched.items():
                if records[0].offset < self._next.get(partition, 0):
                    self._begin_anew(partition, records[0].offset)
                for record in records:
                    for queue in self._queues.values():
                        if queue.accepts(record):
                            found = True
                            delivery = Delivery(record, tag=-next(_tags))
                            self._buffer.append((queue.name, delivery))
                self._advance(partition, records[-1].offset + 1)
        if found:
            self._wakeup.set()
        if not fetched:
            wait(client, self._changed, longest / 1000)

    def _patience(self) -> int:
        """How long a broker may hold a request, in milliseconds."""
        settled = time.monotonic() - self._assigned > SETTLED_SECONDS
        return SETTLED_FETCH_MAX_WAIT_MS if settled else FETCH_MAX_WAIT_MS

    def _begin_anew(self, partition: TopicPartition, offset: int) -> None:
        """The topic was deleted and made again: its offsets are other messages now."""
        for queue in self._queues.values():
            if partition in queue.positions:
                queue.positions[partition] = offset

    def _advance(self, partition: TopicPartition, offset: int) -> None:
        self._next[partition] = offset
        for queue in self._queues.values():
            if queue.positions.get(partition, offset) < offset:
                queue.positions[partition] = offset

    def _pass_over(self, client: KafkaConsumer, exc: CorruptRecordError) -> None:
        """Go past a record that the client can't parse: it would fail again for ever."""
        record = unreadable(client, exc)
        logger.warning("%s-%d at offset %d can't be read (%s): it is passed over.",
                       record.topic, record.partition, record.offset, exc)  # fmt: skip
        with self._lock:
            self._advance(TopicPartition(record.topic, record.partition), record.offset + 1)

    def _warn(self, wanted: Iterable[TopicPartition], exc: Exception) -> None:
        now = time.monotonic()
        if now - self._last_warning >= WARN_EVERY:
            self._last_warning = now
            topics = ", ".join(sorted({partition.topic for partition in wanted}))
            logger.warning("Reading %s is interrupted (%s); trying again.",
                           topics, why(self._options, exc))  # fmt: skip
