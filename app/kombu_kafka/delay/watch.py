"""A dispatcher's clients at work: see what is due, forward it, step aside when another is to do it."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Any

from kafka import ConsumerRebalanceListener
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CorruptRecordError, KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from ..clients.consumers import new_consumer, unreadable
from ..clients.fetching import answered, hold, poll, settled, wait
from ..options import Options
from . import letters as delay_letters
from . import messages as delay
from . import topics as delay_topics
from .forwarder import Forwarder, Outgoing, RefusedError
from .level import Entry, Level, take
from .opening import open_levels
from .revoked import RevokedIds
from .single_owner import SingleOwnerAssignor
from .statistics import Statistics

__all__ = ("QUIET_MS", "Watch")

logger = logging.getLogger(__name__)

#: Milliseconds after which a dispatcher that died is replaced: the lowest that brokers allow by
#: default (group.min.session.timeout.ms).
SESSION_MS = 6000
#: Milliseconds between two heartbeats; after this others hear of a dispatcher that ended.
HEARTBEAT_MS = 1000
#: Milliseconds after which one that is held up is taken to have failed.
MAX_POLL_MS = 60_000
#: Longest wait of a broker's for records, in milliseconds: what is resumed is read after this.
POLL_MS = 200
#: The same, while nothing is to be resumed.
QUIET_MS = 1000
#: The same, while nothing waits: a partition may have to be read anew after a failure only where something does.
EMPTY_MS = 5000
#: Records forwarded in one transaction: what becomes due meanwhile waits for its end.
BATCH = 500
#: Milliseconds before something is ready from which on it is looked for what was revoked.
REVOKED_AHEAD_MS = 3000
#: Seconds between two attempts after a failure, and after a wrong setting.
RETRY_SECONDS = 1.0
#: Seconds between two commits of what moved although nothing was forwarded (transaction markers), and
#: between two counts of what waits.
TIDY_SECONDS = 5.0
#: Milliseconds that counting may take.
COUNT_MS = 500
#: Seconds between two deletions of what was forwarded.
DELETE_SECONDS = 600.0


class _Changes(ConsumerRebalanceListener):
    """Notes that partitions came or went; called in a thread of the client's."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.seen.set()

    def on_partitions_revoked(self, revoked: Any) -> None:
        self.seen.set()


class Watch:
    """A dispatcher's clients, from connection to failure; for one thread.

    Arguments:
        options: brokers, group and topics.
        statistics: where to count.
        stop: says when to end.
        missing: topics that were not there, and when.
        wake: ends a wait; set it after `stop`.
    """

    def __init__(
        self,
        options: Options,
        statistics: Statistics,
        stop: threading.Event,
        missing: dict[str, float],
        wake: threading.Event | None = None,
    ) -> None:
        self._options = options
        self._statistics = statistics
        self._stop = stop
        self._missing = missing
        self._wake = wake or threading.Event()
        self._topic = str(options.delay_topic)
        self._changes = _Changes()
        self._forwarder: Forwarder | None = None
        self._revoked: RevokedIds | None = None
        self._levels: dict[TopicPartition, Level] = {}
        #: Records to be forwarded singly, to find the one that Kafka refuses.
        self._singly = 0
        #: What Kafka refused, by level and offset: why, and how often.
        self._refused: dict[tuple[int, int], delay_letters.Refusal] = {}
        self._tidied = self._deleted = time.monotonic()
        self._client = new_consumer(
            options,
            group_id=delay_topics.group_of(options),
            partition_assignment_strategy=[SingleOwnerAssignor],
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            # So long may others wait for a member that is held up in a transaction.
            max_poll_interval_ms=MAX_POLL_MS,
            # A partition that is resumed is fetched when the last request has been answered.
            fetch_max_wait_ms=POLL_MS,
            max_partition_fetch_bytes=256 * 1024,
        )
        self._client.subscribe([self._topic], listener=self._changes)

    def run(self) -> None:
        """Forward until told to stop.

        Raises:
            KafkaError: Kafka is away, or the clients must be made anew.
        """
        try:
            while not self._stop.is_set():
                self._step()
        finally:
            self._let_go()
            self._client.close(autocommit=False, timeout_ms=2000)

    def _step(self) -> None:
        fetched = self._read()
        # In this order: a change after the snapshot has the transaction refused.
        group = self._client.group_metadata()
        if self._changes.seen.is_set():
            self._take_over()
            return
        for partition, records in fetched.items():
            if partition not in self._levels:
                self._changes.seen.set()
                return
            self._levels[partition].push(records)
        if self._forwarder is None:
            return
        self._flow()
        soon = _now() + REVOKED_AHEAD_MS
        if self._revoked is not None and any(at < soon for at in self._ready_at()):
            self._revoked.look()
        try:
            self._forward(self._forwarder, group)
            self._tidy(group)
        except KafkaError as exc:
            logger.info("Delayed messages were not forwarded (%r): looking at what is ours.", exc)
            self._changes.seen.set()

    def _read(self) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Return what was read, if need be after waiting for it, or for something to be ready."""
        client = self._client
        waits = settled(client)
        self._wake.clear()
        if self._stop.is_set():
            return {}
        patience = self._patience(hold(client, self._fetch_wait()))
        try:
            fetched = poll(
                client, timeout_ms=0 if waits else min(patience, POLL_MS), max_records=2 * BATCH
            )
            if waits and patience and not fetched:
                wait(client, self._wake, patience / 1000)
                fetched = answered(client)
        except CorruptRecordError as exc:
            record = unreadable(client, exc)
            return {TopicPartition(record.topic, record.partition): [record]}
        return fetched

    def _patience(self, longest: int) -> int:
        """How long to wait for records, or until something is ready: milliseconds, `longest` at most."""
        if self._changes.seen.is_set():
            return 0  # what failed is begun anew at once
        now = _now()
        return max(0, int(min([longest, *(at - now for at in self._ready_at())])))

    def _ready_at(self) -> list[int]:
        monotonic = time.monotonic()
        ready = [
            level.ready_at() for level in self._levels.values() if level.blocked_until <= monotonic
        ]
        return [at for at in ready if at is not None]

    def _fetch_wait(self) -> int:
        """How long a broker may hold a request, in milliseconds: not while one is to be resumed."""
        if not any(self._levels.values()):
            return EMPTY_MS
        now = _now()
        moments = (level.read_on_at() for level in self._levels.values())
        return POLL_MS if any(now < at < now + QUIET_MS for at in moments) else QUIET_MS

    def _take_over(self) -> None:
        """Begin with what is ours now, from what is committed; first end what others left open."""
        self._changes.seen.clear()
        self._let_go()
        mine = self._client.assignment()
        if not mine:
            return
        self._renew()
        self._revoked = RevokedIds(self._options)
        self._revoked.load()
        self._levels = open_levels(self._client, mine)
        self._client.resume(*self._client.paused())
        self._statistics.active = True
        logger.info("Forwarding the delayed messages of %s.", self._topic)

    def _renew(self) -> None:
        """Have a new forwarder; that ends whatever the last one, ours or not, left open."""
        self._end_forwarder()
        self._forwarder = Forwarder(
            self._options, delay_topics.group_of(self._options), self._client.topics, self._missing
        )

    def _end_forwarder(self) -> None:
        if self._forwarder is not None:
            self._forwarder.close()
            self._forwarder = None

    def _let_go(self) -> None:
        self._statistics.active = False
        self._statistics.waiting = 0
        self._levels.clear()
        self._end_forwarder()
        if self._revoked is not None:
            self._revoked.close()
            self._revoked = None

    def _flow(self) -> None:
        """Read on where what was read is ready soon."""
        now = _now()
        full = {partition for partition, level in self._levels.items() if level.full(now)}
        paused = self._client.paused()
        self._client.pause(*(full - paused))
        self._client.resume(*(paused - full))

    def _forward(self, forwarder: Forwarder, group: Any) -> None:
        """Forward what is ready, in one transaction."""
        now, monotonic = _now(), time.monotonic()
        levels = [level for level in self._levels.values() if level.blocked_until <= monotonic]
        chosen = take(levels, now, 1 if self._singly else BATCH)
        if not chosen:
            return
        outgoing: list[Outgoing] = []
        origins: list[Entry] = []
        after = Statistics(True)
        for entry in chosen:
            records = self._outgoing(entry, now, after)
            outgoing += records
            origins += [entry] * len(records)
        leaving: dict[Level, list[Entry]] = {}
        for entry in chosen:
            leaving.setdefault(entry.level, []).append(entry)
        offsets = {
            TopicPartition(self._topic, level.number): level.commit(entries)
            for level, entries in leaving.items()
        }
        try:
            forwarder.forward(outgoing, offsets, group)
        except RefusedError as exc:
            for entry in chosen:
                entry.level.give_back(entry)
            self._refuse(exc, origins)
            if forwarder.broken:
                self._renew()
            return
        for level, entries in leaving.items():
            level.forwarded(entries)
        for entry in chosen:
            self._refused.pop((entry.level.number, entry.record.offset), None)
        self._singly = max(0, self._singly - len(chosen))
        self._count(after)

    def _outgoing(self, entry: Entry, now: int, count: Statistics) -> list[Outgoing]:
        """Return what a record becomes: a message, a hop, one to be discarded, or a letter."""
        refusal = self._refused.get((entry.level.number, entry.record.offset))
        delayed, record = entry.delayed, entry.record
        if delayed is None or refusal is not None:
            count.dead_letters += 1
            refusal = refusal or delay_letters.Refusal("undeliverable", str(entry.fault))
            return [delay_letters.letter(self._options, record, delayed, refusal)]
        name = delayed.header("id")
        if self._revoked is not None and name in self._revoked:
            count.revoked += 1
            return [
                Outgoing(delayed.topic, record.value, record.key,
                         delay_letters.expired(delayed.headers), delayed.partition),
                Outgoing(self._revoked.topic, None, name, [], 0),
            ]  # fmt: skip
        if delayed.due <= now:
            count.forwarded += 1
            count.late_ms_total += now - delayed.due
            count.late_ms_max = max(count.late_ms_max, now - delayed.due)
            return [
                Outgoing(
                    delayed.topic, record.value, record.key, delayed.headers, delayed.partition
                )
            ]
        count.hops += 1
        headers = delayed.headers + delay.describe(delayed.topic, delayed.partition, delayed.due)
        number = delay.level_of(delayed.due - now)
        return [Outgoing(self._topic, record.value, record.key, headers, number)]

    def _refuse(self, exc: RefusedError, origins: list[Entry]) -> None:
        """Kafka will not take a record: it becomes a letter in the next attempt."""
        if exc.index is None:
            self._singly = len(origins)
            return
        entry = origins[exc.index]
        level = entry.level
        key = level.number, entry.record.offset
        before = self._refused.get(key)
        if before is None:
            self._refused[key] = delay_letters.Refusal(exc.reason, str(exc))
            logger.error(
                "A delayed message can't be forwarded and goes to the dead letter topic %s: %s.",
                self._options.dead_letter_topic, exc,
            )  # fmt: skip
            return
        # The letter itself was refused: shorter next time; if that's no help, this level waits.
        self._refused[key] = before.again()
        if before.attempts > 1:
            level.blocked_until = time.monotonic() + RETRY_SECONDS
            logger.error(
                "Can't write a dead letter to %s (%s): level %d of the delayed messages waits, and "
                "it is tried again until it works.",
                self._options.dead_letter_topic, exc, level.number,
            )  # fmt: skip

    def _count(self, after: Statistics) -> None:
        total = self._statistics
        total.transactions += 1
        total.forwarded += after.forwarded
        total.hops += after.hops
        total.revoked += after.revoked
        total.dead_letters += after.dead_letters
        total.late_ms_total += after.late_ms_total
        total.late_ms_max = max(total.late_ms_max, after.late_ms_max)

    def _count_waiting(self) -> None:
        # A number to look at: what Kafka does not answer soon is asked next time.
        with suppress(KafkaError):
            ends = self._client.end_offsets(list(self._levels), timeout_ms=COUNT_MS)
            self._statistics.waiting = sum(
                level.unforwarded(ends[partition]) for partition, level in self._levels.items()
            )

    def _tidy(self, group: Any) -> None:
        """Commit past transaction markers, so that the backlog returns to nothing; count it; free the disk."""
        now = time.monotonic()
        if now - self._tidied < TIDY_SECONDS:
            return
        self._tidied = now
        moved: dict[TopicPartition, OffsetAndMetadata] = {}
        for partition, level in self._levels.items():
            level.pass_over(self._client.position(partition) or 0)
            if not level and level.position > level.committed:
                moved[partition] = level.commit(())
        if moved and self._forwarder is not None:
            self._forwarder.forward([], moved, group)
            for partition in moved:
                self._levels[partition].forwarded(())
        self._count_waiting()
        if now - self._deleted >= DELETE_SECONDS:
            self._deleted = now
            offsets = {tp: level.committed for tp, level in self._levels.items() if level.committed}
            delay_topics.delete(self._options, offsets)


def _now() -> int:
    return int(time.time() * 1000)
