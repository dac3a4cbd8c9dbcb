"""The thread that owns the Kafka consumer.

kafka-python's consumer is not thread-safe, so one thread makes, uses and closes it. It fills an
:class:`~kombu_kafka.inbox.Inbox` and commits the watermarks that the inbox reports. Losing the
brokers is weather: the client reconnects by itself, what is in flight stays, and commits are
repeated until they work.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time

from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import (
    AuthorizationError,
    CorruptRecordError,
    KafkaError,
    RetriableError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import OffsetAndMetadata, TopicPartition

from . import attempts
from .errors import (
    ConfigurationError,
    ConsumerFailedError,
    KombuKafkaError,
    PartitionNotFoundError,
)
from .inbox import Inbox
from .lanes import open_lane
from .options import Options
from .record import UNREADABLE
from .wakeup import Wakeup

__all__ = ("Consumer",)

logger = logging.getLogger(__name__)

#: Milliseconds the thread waits for records before it looks at its other duties.
POLL_MS = 100
#: Seconds between two attempts after the brokers could not be reached.
RETRY_SECONDS = 1.0
#: Seconds between two warnings about the same trouble.
WARN_EVERY = 10.0
#: Seconds a commit may take before records are looked for again.
COMMIT_SECONDS = 5.0
#: Seconds after which offsets are committed again although nothing was done: Kafka forgets those
#: of a group without members after offsets.retention.minutes (7 days by default).
RECOMMIT_SECONDS = 3600.0
#: Seconds a new connection waits for what an earlier one of the same process has begun.
CLAIM_SECONDS = 300.0
#: Seconds for the last commit when the consumer ends.
FINAL_COMMIT_SECONDS = 10.0

#: The consumer that owns a partition in this process: a successor waits for its end.
_owners: dict[tuple[str, TopicPartition], Consumer] = {}
_owners_lock = threading.Lock()


class Consumer:
    """Consume partitions that are bound to this process.

    Offsets: a partition starts at the group's committed offset, or at its beginning where there is
    none, so that nothing queued before the first worker is passed over. What is committed is the
    watermark, never past a record that is not done.

    Arguments:
        options: brokers, group, partitions, ordering, journal directory.
        wakeup: set when there may be something to hand out.

    Attributes:
        inbox: where records come out and acknowledgements go in.
        error: why the consumer ended by itself, or None.
    """

    def __init__(self, options: Options, wakeup: Wakeup | None = None) -> None:
        self.inbox = Inbox(options.max_buffered, owner=options.client_id, wakeup=wakeup)
        self.error: KombuKafkaError | None = None
        self._options = options
        self._topics: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._positions: dict[TopicPartition, int] = {}
        self._wanted: set[TopicPartition] = set()
        self._claims: set[tuple[str, TopicPartition]] = set()
        self._closing = threading.Event()
        self._stop = threading.Event()
        self._last_warning = 0.0
        self._last_commit = time.monotonic()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="kombu-kafka-consumer", daemon=True)

    # Called by the transport, from the event loop's thread

    @property
    def started(self) -> bool:
        """Whether there ever was something to consume: the wakeup is then closed by the thread."""
        return self._thread.ident is not None

    def consume(self, topic: str) -> None:
        """Begin to consume this process's partitions of `topic`; returns at once.

        Raises:
            ConfigurationError: no partitions are bound.
        """
        if self._options.partitions is None:
            raise ConfigurationError(
                f"Nothing says which partitions of {topic} this process owns: set CUSTOM_PARTITION "
                f"(or the transport option 'partitions'); sharing them in a group is not there yet."
            )
        self._wanted |= {TopicPartition(topic, number) for number in self._options.partitions}
        self._topics.put(topic)
        if not self._thread.is_alive():
            atexit.register(self.join)
            self._thread.start()

    def positions(self) -> dict[tuple[str, int], int] | None:
        """Where consumption of each bound partition began; None until all of them have."""
        known = dict(self._positions)
        if not self._wanted or self._wanted - known.keys():
            return None
        return {(tp.topic, tp.partition): offset for tp, offset in known.items()}

    def close(self) -> None:
        """Hand nothing out any more; go on committing until what is in flight is settled."""
        self.inbox.close()
        self._closing.set()

    def join(self) -> None:
        """End now: commit what is done, close the client. What is in flight will run again."""
        if os.getpid() != self._pid:
            return  # a forked child: the thread and its sockets are the parent's
        self.close()
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(FINAL_COMMIT_SECONDS + 5)
        if self._options.state_directory is not None:
            attempts.forget(self._options.state_directory)

    # The thread

    def _run(self) -> None:
        client = None
        try:
            client = self._connect()
            while not (self._stop.is_set() or self._closing.is_set()):
                self._step(client)
        except KombuKafkaError as exc:
            self.error = exc
        except Exception as exc:
            logger.exception("Consuming %s failed.", self._names())
            self.error = ConsumerFailedError(
                f"Consuming {self._names()} failed ({exc!r}): start this process again; what it "
                f"had in flight will run again."
            )
        self.inbox.close()
        self._settle(client)
        self._let_go(client)
        # The event loop may still wait on the inbox's descriptor.
        while not (self._stop.is_set() or self._closing.wait(POLL_MS / 1000)):
            pass
        self.inbox.release()

    def _settle(self, client: KafkaConsumer | None) -> None:
        """Go on committing until nothing is in flight, so that no successor begins it again."""
        while self.inbox.in_flight() and not self._stop.wait(POLL_MS / 1000):
            if client is not None:
                self._commit_if_due(client)

    def _connect(self) -> KafkaConsumer | None:
        while not self._stop.is_set():
            try:
                return KafkaConsumer(
                    **self._options.client_settings(),
                    group_id=self._options.group_id,
                    enable_auto_commit=False,
                    auto_offset_reset="earliest",
                    isolation_level="read_committed",
                    allow_auto_create_topics=False,
                    fetch_max_wait_ms=500,
                )
            except KafkaError as exc:
                self._warn("No Kafka broker of %s answers (%s); trying again.",
                           ", ".join(self._options.hosts), exc)  # fmt: skip
                self._stop.wait(RETRY_SECONDS)
        return None

    def _step(self, client: KafkaConsumer) -> None:
        """Do each duty once: new topics, records, commits."""
        try:
            while not self._topics.empty():
                topic = self._topics.get()
                try:
                    self._open(client, topic)
                except RetriableError:
                    self._topics.put(topic)
                    raise
            self._fetch(client)
        except AuthorizationError as exc:
            raise ConfigurationError(
                f"This client may not consume {self._names()} as group {self._options.group_id} "
                f"({type(exc).__name__}): grant it Read on both with kafka-acls.sh."
            ) from exc
        except RetriableError as exc:
            self._warn("Kafka did not answer for %s (%s); going on.", self._names(), exc)
            self._stop.wait(RETRY_SECONDS)
        self._commit_if_due(client)

    def _open(self, client: KafkaConsumer, topic: str) -> None:
        """Assign and position this process's partitions of a topic."""
        existing = client.partitions_for_topic(topic)
        if not existing:
            raise UnknownTopicOrPartitionError(f"no broker knows the topic {topic}")
        for number in self._options.partitions or ():
            partition = TopicPartition(topic, number)
            if partition in self._positions:
                continue
            if number not in existing:
                raise PartitionNotFoundError(
                    f"The topic {topic} has no partition {number}: it has {len(existing)}, "
                    f"numbered from 0."
                )
            self._claim(partition)
            client.assign([*client.assignment(), partition])
            self._positions[partition] = open_lane(client, self.inbox, self._options, partition)

    def _claim(self, partition: TopicPartition) -> None:
        """Wait until an earlier consumer of this process has let go of the partition."""
        claim = (self._options.group_id, partition)
        deadline = time.monotonic() + CLAIM_SECONDS
        while not self._stop.is_set():
            with _owners_lock:
                if claim not in _owners:
                    _owners[claim] = self
                    self._claims.add(claim)
                    return
            if time.monotonic() > deadline:
                raise ConsumerFailedError(
                    f"Tasks of {partition.topic}-{partition.partition} begun over an earlier "
                    f"connection were not finished within {CLAIM_SECONDS:g} seconds: start this "
                    f"process again; they will run again."
                )
            self._warn("Waiting for tasks of %s-%d begun over an earlier connection.",
                       partition.topic, partition.partition)  # fmt: skip
            self._stop.wait(POLL_MS / 1000)

    def _fetch(self, client: KafkaConsumer) -> None:
        congested, paused = self.inbox.congested(), client.paused()
        client.pause(*(congested - paused))
        client.resume(*(paused - congested))
        try:
            fetched = client.poll(timeout_ms=POLL_MS)
        except CorruptRecordError as exc:
            self._pass_over(client, exc)
            return
        for partition, records in fetched.items():
            self.inbox.push(partition, records, records[-1].offset + 1)
        for partition in client.assignment():
            # Past transaction markers and compacted records, which no poll returns.
            position = client._subscription.assignment[partition].position
            if position is not None:
                self.inbox.push(partition, (), position.offset)

    def _pass_over(self, client: KafkaConsumer, exc: CorruptRecordError) -> None:
        """Have a record that the client can't parse dead-lettered by where it lies.

        Fetching it again would fail again, and the client would never get past it.
        """
        failed = client._fetcher._next_partition_records
        if failed is None:
            raise exc
        partition = failed.topic_partition
        offset = client._subscription.assignment[partition].position.offset
        reason = (UNREADABLE, str(exc).encode())
        record = ConsumerRecord(
            partition.topic, partition.partition, -1, offset, -1, 0, None, None, [reason], None,
            -1, -1, -1,
        )  # fmt: skip
        self.inbox.push(partition, [record], offset + 1)
        client.seek(partition, offset + 1)

    def _commit_if_due(self, client: KafkaConsumer) -> None:
        idle = time.monotonic() - self._last_commit
        if idle < self._options.commit_interval:
            return
        commits = self.inbox.commits(uncommitted=idle < RECOMMIT_SECONDS)
        if not commits:
            return
        self._last_commit = time.monotonic()
        self._commit(client, commits, COMMIT_SECONDS)

    def _commit(
        self,
        client: KafkaConsumer,
        commits: dict[TopicPartition, OffsetAndMetadata],
        timeout: float,
    ) -> None:
        try:
            client.commit(commits, timeout_ms=int(timeout * 1000))
        except KafkaError as exc:
            self._warn("Offsets of %s are not committed (%s); it is tried again.",
                       self._names(), exc)  # fmt: skip
        else:
            self.inbox.committed(commits)

    def _let_go(self, client: KafkaConsumer | None) -> None:
        """Commit what is done, close the client, and let a successor have the partitions."""
        if client is not None:
            commits = self.inbox.commits(uncommitted=True)
            if commits:
                self._commit(client, commits, FINAL_COMMIT_SECONDS)
            client.close(autocommit=False, timeout_ms=1000)
        with _owners_lock:
            for claim in self._claims:
                _owners.pop(claim, None)
            self._claims.clear()

    def _names(self) -> str:
        return ", ".join(sorted(f"{tp.topic}-{tp.partition}" for tp in self._wanted))

    def _warn(self, message: str, *args: object) -> None:
        now = time.monotonic()
        if now - self._last_warning >= WARN_EVERY:
            self._last_warning = now
            logger.warning(message, *args)
