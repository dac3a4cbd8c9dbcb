"""The thread that owns the Kafka consumer.

kafka-python's consumer is not thread-safe, so one thread makes, uses and closes it. It fills an
:class:`~kombu_kafka.consuming.inbox.Inbox` and commits the watermarks that the inbox reports; which
partitions it reads is its :class:`~kombu_kafka.ownership.base.Ownership`'s to say. Losing the brokers
is weather: the client reconnects by itself, what is in flight stays, and commits are repeated
until they work.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence

from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import (
    AuthorizationError,
    CorruptRecordError,
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    RetriableError,
)
from kafka.structs import TopicPartition

from .clients.consumers import new_consumer, unreadable
from .clients.fetching import answered, hold, poll, settled, wait
from .clients.handshake import require_access
from .clients.metrics import ClientMetrics, CommitMeter
from .consuming import attempts
from .consuming.inbox import Inbox
from .errors import ConfigurationError, ConsumerFailedError, KombuKafkaError, NotOwnerError
from .options import Options
from .ownership.base import Committing, Ownership
from .ownership.group import GroupOwnership
from .ownership.static import StaticOwnership
from .wakeup import Wakeup

__all__ = ("Consumer",)

logger = logging.getLogger(__name__)

#: Milliseconds the thread waits for records before it looks at its other duties.
POLL_MS = 100
#: Milliseconds a broker holds a request that nothing answers: as long may a partition wait that is
#: resumed while others are read.
FETCH_MAX_WAIT_MS = 500
#: The same while there is nothing else to do.
QUIET_MS = 1000
#: Seconds between two attempts after the brokers could not be reached.
RETRY_SECONDS = 1.0
#: Seconds between two warnings about the same trouble.
WARN_EVERY = 10.0
#: Seconds a commit may take before records are looked for again.
COMMIT_SECONDS = 5.0
#: Seconds after which offsets are committed again although nothing was done: Kafka forgets those
#: of a group without members after offsets.retention.minutes (7 days by default).
RECOMMIT_SECONDS = 3600.0
#: Seconds for the last commit when the consumer ends.
FINAL_COMMIT_SECONDS = 10.0


class Consumer:
    """Consume the partitions that this process owns, bound to it or shared in a group.

    Offsets: a partition starts at the group's committed offset, or at its beginning where there is
    none, so that nothing queued before the first worker is passed over. What is committed is the
    watermark, never past a record that is not done.

    Arguments:
        options: brokers, group, partitions, ordering, journal directory.

    Attributes:
        inbox: where records come out and acknowledgements go in.
        error: why the consumer ended by itself, or None.
    """

    def __init__(self, options: Options, wakeup: Wakeup | None = None) -> None:
        owner = options.worker_name or options.client_id
        self.inbox = Inbox(options.max_buffered, owner=owner, wakeup=wakeup)
        self.error: KombuKafkaError | None = None
        self.metrics: ClientMetrics | None = None
        self.commit_meter = CommitMeter()
        self._options = options
        self._topics: frozenset[str] = frozenset()
        kind = GroupOwnership if options.partitions is None else StaticOwnership
        self._ownership: Ownership = kind(options, self.inbox, self._flush, self._warn)
        self._closing = threading.Event()
        self._stop = threading.Event()
        #: Ends a wait for records: something is asked of the thread, or they are there.
        self._wake = threading.Event()
        self._last_warning = 0.0
        self._last_commit = time.monotonic()
        #: What is being committed, if anything.
        self._committing: Committing | None = None
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="kombu-kafka-consumer", daemon=True)

    # Called by the transport, from the event loop's thread

    @property
    def started(self) -> bool:
        """Whether there ever was something to consume: the wakeup is then closed by the thread."""
        return self._thread.ident is not None

    def consume(self, topic: str) -> None:
        """Begin to consume this process's partitions of `topic`; returns at once."""
        self._topics |= {topic}
        self._wake.set()
        if not self.started:
            atexit.register(self.join)
            self._thread.start()

    def cancel(self, topic: str) -> None:
        """Consume `topic` no longer; its partitions are let go once what runs of them is done."""
        self._topics -= {topic}
        self._wake.set()

    def positions(self) -> dict[tuple[str, int], int] | None:
        """Where consumption of each partition of this process began; None until all have."""
        if not self._ownership.ready(self._topics):
            return None
        return {(tp.topic, tp.partition): at for tp, at in self._ownership.positions.items()}

    def close(self) -> None:
        """Hand nothing out any more; go on committing until what is in flight is settled."""
        self.inbox.close()
        self._closing.set()
        self._wake.set()

    def join(self) -> None:
        """End now: commit what is done, close the client. What is in flight will run again."""
        if os.getpid() != self._pid:
            return  # a forked child: the thread and its sockets are the parent's
        self.close()
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(FINAL_COMMIT_SECONDS + 5)
        if self._options.state_directory is not None:
            attempts.forget(self._options.state_directory)

    # The thread

    def _run(self) -> None:
        try:
            self._begin()
            while not (self._stop.is_set() or self._closing.is_set()):
                self._step()
            self.inbox.close()
            self._ownership.closing.set()
            self._settle()
        except KombuKafkaError as exc:
            self.error = exc
        except Exception as exc:
            logger.exception("Consuming %s failed.", self._names())
            self.error = ConsumerFailedError(
                f"Consuming {self._names()} failed ({exc!r}): start this process again; what it "
                f"had in flight will run again."
            )
        self.inbox.close()
        self._settle_after_failure()
        self._let_go()
        # The event loop may still wait on the inbox's descriptor.
        while not (self._stop.is_set() or self._closing.wait(POLL_MS / 1000)):
            pass
        self.inbox.release()

    def _begin(self) -> None:
        client = self._ownership.client = self._connect()
        self.metrics = client and ClientMetrics(client)

    def _begin_anew(self) -> None:
        """Leave with a client of which nothing more will come, and begin with a new one."""
        self._ownership.client.close(autocommit=False, timeout_ms=1000)
        self._begin()

    def _settle(self) -> None:
        """Go on owning and committing until nothing is in flight: no successor begins it again."""
        while self.inbox.in_flight() and not self._stop.is_set():
            if self._ownership.client is None:
                self._stop.wait(POLL_MS / 1000)
            else:
                self._step()

    def _settle_after_failure(self) -> None:
        """After a failure: wait for what is in flight, so that its journal is told."""
        while self.inbox.in_flight() and not self._stop.wait(POLL_MS / 1000):
            if isinstance(self.error, NotOwnerError) or self._ownership.client is None:
                continue
            try:
                self._commit_if_due()
            except NotOwnerError as exc:
                self.error = exc

    def _connect(self) -> KafkaConsumer | None:
        while not self._stop.is_set():
            require_access(self._options, again=True)
            try:
                if self._ownership.prepare():
                    client = new_consumer(
                        self._options,
                        **{
                            "group_id": self._options.group_id,
                            "fetch_max_wait_ms": FETCH_MAX_WAIT_MS,
                            "metrics_enabled": True,
                            **self._ownership.settings(),
                        },
                    )
                    # Where Kafka no longer has what is to be read next, the client is to say so.
                    client._subscription.has_default_offset_reset_policy = lambda: False
                    return client
            except KafkaError as exc:
                self._warn("No Kafka broker of %s answers (%s); trying again.",
                           ", ".join(self._options.hosts), exc)  # fmt: skip
                self._stop.wait(RETRY_SECONDS)
            else:
                self._stop.wait(POLL_MS / 1000)
        return None

    def _step(self) -> None:
        """Do each duty once: ownership, records, commits."""
        self._wake.clear()
        try:
            self._end_commit(wait=False)
            if self._committing is None:
                if self._ownership.stuck():
                    self._begin_anew()
                    return
                self._ownership.renew()
                self._ownership.step(self._topics)
            self._fetch()
        except AuthorizationError as exc:
            raise ConfigurationError(
                f"This client may not consume {self._names()} as group {self._options.group_id} "
                f"({type(exc).__name__}): grant it Read on both with kafka-acls.sh."
            ) from exc
        except RetriableError as exc:
            if self._warn("Kafka did not answer for %s (%s); going on.", self._names(), exc):
                require_access(self._options, again=True)  # it may be that it won't
            self._stop.wait(RETRY_SECONDS)
        except KafkaError as exc:
            raise self._ownership.explain(exc) or exc from exc
        self._commit_if_due()

    def _fetch(self) -> None:
        client = self._ownership.client
        gone = self._ownership.absent.names
        flowing = {partition for partition in self.inbox.flowing() if partition.topic not in gone}
        paused, assigned = client.paused(), client.assignment()
        client.pause(*(assigned - flowing - paused))
        client.resume(*(paused & flowing))
        waits = settled(client)
        quiet = waits and self._quiet()
        longest = hold(client, QUIET_MS if quiet else FETCH_MAX_WAIT_MS)
        try:
            fetched = poll(client, timeout_ms=0 if waits else POLL_MS)
            self._push(fetched, flowing)
            if waits and not fetched:
                quiet = quiet and self.inbox.quiet()
                patience = min(longest, self._options.session_timeout * 100) if quiet else POLL_MS
                wait(client, self._wake, patience / 1000)
                self._push(answered(client), flowing)
        except CorruptRecordError as exc:
            # It is dead-lettered by where it lies.
            record = unreadable(client, exc)
            self._push({TopicPartition(record.topic, record.partition): [record]}, flowing)
        except OffsetOutOfRangeError as exc:
            self._end_commit(wait=True)
            self._ownership.out_of_range(exc.args[0])
        except LogTruncationError as exc:
            self._end_commit(wait=True)
            self._ownership.cut_short(exc.divergent_offsets)

    def _push(
        self,
        fetched: Mapping[TopicPartition, Sequence[ConsumerRecord]],
        flowing: Collection[TopicPartition],
    ) -> None:
        """Hand over what was fetched, and where that leaves the partitions that are fetched from."""
        client = self._ownership.client
        for partition, records in fetched.items():
            last = records[-1]
            self.inbox.push(partition, records, last.offset + 1, last.leader_epoch)
        for partition in client.assignment().intersection(flowing):
            # Past transaction markers and compacted records, which no poll returns.
            position = client._subscription.assignment[partition].position
            if position is not None:
                self.inbox.push(partition, (), position.offset, position.leader_epoch)

    def _quiet(self) -> bool:
        """Whether there is nothing to do but to wait for records."""
        return (
            not self._closing.is_set()
            and self._ownership.ready(self._topics)
            and not self._ownership.absent.names
            and self.inbox.quiet()
        )

    def _commit_if_due(self) -> None:
        if self._committing is not None:
            self._end_commit(wait=False)
            return  # the owner's duties, which wait while a commit is on its way, come before the next
        idle = time.monotonic() - self._last_commit
        if idle < self._options.commit_interval:
            return
        commits = self.inbox.commits(uncommitted=idle < RECOMMIT_SECONDS)
        if not commits:
            return
        self._last_commit = time.monotonic()
        self._committing = self._ownership.begin_commit(commits, COMMIT_SECONDS)
        self._end_commit(wait=False)

    def _flush(
        self,
        partitions: Collection[TopicPartition] | None = None,
        timeout: float = COMMIT_SECONDS,
    ) -> bool:
        """Commit what is done (of `partitions`) now; say whether Kafka has it."""
        self._end_commit(wait=True)
        commits = self.inbox.commits(uncommitted=True)
        due = {
            partition: commit
            for partition, commit in commits.items()
            if partitions is None or partition in partitions
        }
        if not due:
            return True
        self._committing = self._ownership.begin_commit(due, timeout)
        return self._end_commit(wait=True)

    def _end_commit(self, *, wait: bool) -> bool:
        """Take in what became of the commit that was begun; say whether Kafka has it by now."""
        committing = self._committing
        if committing is None:
            return True
        if not wait and not committing.is_ready():
            return False
        self._committing = None
        try:
            seconds = committing.end()
        except RebalanceInProgressError:
            return False  # it is over in a moment
        except KafkaError as exc:
            self.commit_meter.failures += 1
            self._warn("Offsets of %s are not committed (%s); it is tried again.",
                       self._names(), exc)  # fmt: skip
            return False
        self.commit_meter.worked(seconds)
        self.inbox.committed(committing.offsets)
        return True

    def _let_go(self) -> None:
        """Commit what is done, close the client, and let a successor have the partitions."""
        client = self._ownership.client
        if client is not None:
            try:
                if not isinstance(self.error, NotOwnerError):
                    self._flush(timeout=FINAL_COMMIT_SECONDS)
                self._ownership.leave()
            except KombuKafkaError as exc:
                self.error = self.error or exc
            client.close(autocommit=False, timeout_ms=1000)
        self._ownership.succession.release_all()

    def _names(self) -> str:
        partitions = sorted(f"{tp.topic}-{tp.partition}" for tp in self._ownership.positions)
        return ", ".join(partitions or sorted(self._topics))

    def _warn(self, message: str, *args: object) -> bool:
        """Warn, unless that was done a moment ago; return whether it was time to."""
        now = time.monotonic()
        due = now - self._last_warning >= WARN_EVERY
        if due:
            self._last_warning = now
            logger.warning(message, *args)
        return due
