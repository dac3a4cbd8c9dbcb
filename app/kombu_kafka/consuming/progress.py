"""All that is known of one partition that this process owns. Not thread-safe: the inbox locks."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import OffsetAndMetadata, TopicPartition

from ..order import Order
from . import commit_metadata
from .journal import Journal
from .ranges import from_offset, merged
from .tracker import OffsetTracker

__all__ = ("MAX_OUTSTANDING", "PAUSES", "Lane", "Statistics")

logger = logging.getLogger(__name__)

#: Records of a partition that are waiting or being worked on, above which fetching pauses.
MAX_OUTSTANDING = 10_000
#: Why a partition is not fetched from: its commit's metadata are full, too much is unfinished, too
#: much waits.
PAUSES = "metadata", "outstanding", "buffer"
#: Seconds for which a measurement of the metadata holds; it takes up to a few milliseconds.
MEASURE_EVERY = 0.1
#: Seconds between two lines in the log about the same pause.
WARN_EVERY = 60.0


@dataclass(frozen=True)
class Statistics:
    """How one partition stands.

    Attributes:
        in_flight: records handed out and not settled.
        waiting: records fetched and not handed out.
        tracked: records fetched and not done, the two above together.
        watermark: offset below which all is done.
        position: offset of the next record to be fetched.
        committed: offset that Kafka was told; -1 for none.
        metadata_fill: part of a commit's metadata that it takes to tell what is done above the
            watermark; fetching pauses at 0.75, and above 1 not all of it is told.
        paused_by: why nothing is fetched: ``metadata``, ``outstanding`` (too much unfinished),
            ``buffer`` (too much waiting), or an empty text.
        redeliveries: how often a record was handed out again.
        journal_lines: length of the journal; 0 without one.
        lost: records that Kafka deleted before they were consumed, since this process began.
    """

    in_flight: int
    waiting: int
    tracked: int
    watermark: int
    position: int
    committed: int
    metadata_fill: float
    paused_by: str
    redeliveries: int
    journal_lines: int
    lost: int


class Lane:
    """One partition, from fetch to commit.

    Arguments:
        partition: which one.
        position: offset of its next record.
        order: in which its records go out.
        journal: what is known as done, or None.
        committed: the offset that Kafka has for the group, or None.
        known: what Kafka's metadata says is done above `position`.
        attempts: how often records were begun and not finished in earlier lives of the process.
        topic: digest of the topic's id.
        epoch: of the leader that wrote what lies before `position` or later; -1 if unknown.

    Attributes:
        held: whether nothing is to be handed out for now.
        topic: digest of the topic's id.
        epoch: of the leader that wrote what was read last (or -1): by it a log cut short is noticed.
    """

    def __init__(
        self,
        partition: TopicPartition,
        position: int,
        order: Order,
        journal: Journal | None,
        committed: int | None = None,
        known: Sequence[range] = (),
        attempts: Mapping[int, int] | None = None,
        topic: str = "",
        epoch: int = -1,
    ) -> None:
        self.partition = partition
        self.epoch = self._latest = epoch
        self.order = order
        self.tracker = OffsetTracker(position)
        self.journal = journal
        self.committed = -1 if committed is None else committed
        self.held = False
        self.in_flight = 0
        self.redeliveries = 0
        self._known = deque(from_offset(known, position))
        self.topic = topic
        self._attempts = dict(attempts or {})
        #: Offsets that may have taken the process down: one at a time, until they are settled.
        self._suspects = set(self._attempts)
        self._aside: deque[ConsumerRecord] = deque()
        self._redelivered = set(self._attempts)
        self._attempted = 0
        #: What Kafka knows, and what it is being told, as counts of changes.
        self._told = self._telling = 0
        self._deleted = False
        self._fill = 0.0
        self._measured = 0.0
        self._paused_by = ""
        self._warned = 0.0

    # In

    def push(self, records: Sequence[ConsumerRecord], position: int, epoch: int = -1) -> int:
        """Take records that are not known as done; return how many were."""
        if position > self.tracker.position:
            # What is known as done beyond may be of a later leader, read in an earlier life.
            self._latest = max(self._latest, epoch)
            self.epoch = self._latest if epoch >= 0 else -1
        skipped = 0
        done = self.journal.done if self.journal else {}
        tracker, order = self.tracker, self.order
        for record in records:
            offset = record.offset
            if done.get(offset) == record.timestamp or (self._known and self._is_known(offset)):
                tracker.advance(offset + 1)
                skipped += 1
                continue
            tracker.fetched(offset)
            order.push(record)
        tracker.advance(position)
        return skipped

    def _is_known(self, offset: int) -> bool:
        while self._known and self._known[0].stop <= offset:
            self._known.popleft()
        return bool(self._known) and offset in self._known[0]

    def pass_over(self, position: int) -> int:
        """Go on at `position`; return how many records before it were neither fetched nor done."""
        gone = range(self.tracker.position, position)
        done = self.journal.done if self.journal else {}
        lost = sum(offset not in done and not self._is_known(offset) for offset in gone)
        self.tracker.advance(position)
        self.epoch = -1
        return lost

    # Out

    def next(self, *, suspects: bool) -> ConsumerRecord | None:
        """Give a record that may be worked on now; one under suspicion only if `suspects`."""
        if not self._suspects:
            return self.order.pop()
        if suspects and self._aside:
            return self._aside.popleft()
        while (record := self.order.pop()) is not None:
            if suspects or record.offset not in self._suspects:
                return record
            self._aside.append(record)
        return None

    def is_suspect(self, offset: int) -> bool:
        """Whether this record may have taken the process down in an earlier life."""
        return offset in self._suspects

    def handed_out(self, offset: int) -> tuple[bool, int]:
        """Count a record as out; return whether it was before, and its failed attempts."""
        self.in_flight += 1
        again = offset in self._redelivered
        self.redeliveries += again
        return again, self._attempts.get(offset, 0) if self._attempts else 0

    def settle(self, record: ConsumerRecord) -> None:
        """A record is done."""
        offset = record.offset
        if self.journal:
            self.journal.append(offset, record.timestamp)
        self.tracker.done(offset)
        self._redelivered.discard(offset)
        if self._attempts:
            self._attempts.pop(offset, None)
            self._suspects.discard(offset)
        self.in_flight -= 1
        self.order.release(record)

    def requeue(self, record: ConsumerRecord) -> None:
        """A record was not worked on."""
        self._redelivered.add(record.offset)
        self.in_flight -= 1
        self.order.requeue(record)

    def purge(self, *, deleted: bool) -> None:
        """What waits here was deleted; with `deleted` the topic too."""
        for record in (*self._aside, *self.order.clear()):
            self.tracker.done(record.offset)
            self._redelivered.discard(record.offset)
            self._attempts.pop(record.offset, None)
            self._suspects.discard(record.offset)
        self._aside.clear()
        self._deleted |= deleted

    def finished(self, end: int) -> bool:
        """Whether all that lies before `end` was handed out, or waits for what was."""
        return len(self.order) > 0 or self.tracker.position >= end

    def attempt_failed(self, offset: int) -> int:
        """Count an attempt that took its process down; return how many there were."""
        attempts = self._attempts[offset] = self._attempts.get(offset, 0) + 1
        self._attempted += 1
        if self.journal:
            self.journal.attempt(offset, attempts)
        return attempts

    # Kafka's knowledge

    def commit(self, owner: str, *, uncommitted: bool) -> OffsetAndMetadata | None:
        """Return what Kafka is to be told; with `uncommitted`, None where it knows all."""
        if self._deleted:
            return None
        self._telling = self.tracker.changes + self._attempted
        watermark = self.tracker.watermark
        if uncommitted and watermark == self.committed and self._telling == self._told:
            return None
        done = self._done_above()
        self._fill = commit_metadata.fill(watermark, done)
        metadata = commit_metadata.encode(
            owner, watermark, done, topic=self.topic, attempts=self._attempts,
            journal=self.journal.id if self.journal else "",
        )  # fmt: skip
        return OffsetAndMetadata(watermark, metadata, self.epoch)

    @property
    def quiet(self) -> bool:
        """Whether nothing is unfinished here, and Kafka knows it."""
        tracker = self.tracker
        changes = tracker.changes + self._attempted
        return not len(tracker) and (tracker.watermark, changes) == (self.committed, self._told)

    def was_committed(self, commit: OffsetAndMetadata) -> None:
        """Kafka has this, as returned by the latest `commit`."""
        self.committed = commit.offset
        self._told = self._telling
        if self.journal:
            said = commit_metadata.decode(commit.metadata)
            told = said.done if said else ()
            self.journal.committed(commit.offset, commit.metadata, told)

    def _done_above(self) -> list[range]:
        done = self.tracker.done_above()
        if not self._known:
            return done
        return merged(done, from_offset(self._known, self.tracker.position))

    # Back pressure

    def congested(self, max_buffered: int) -> bool:
        """Whether nothing should be fetched for now; says in the log when that is unusual."""
        paused_by = ""
        if self._metadata_is_full():
            paused_by = "metadata"
        elif len(self.tracker) >= MAX_OUTSTANDING:
            paused_by = "outstanding"
        elif len(self.order) >= max_buffered:
            paused_by = "buffer"
        if paused_by == "metadata":
            self._complain()
        elif self._paused_by == "metadata":
            self._warned = 0.0
            logger.info("Fetching of %s-%d goes on.", *self.partition)
        self._paused_by = paused_by
        return bool(paused_by)

    def _metadata_is_full(self) -> bool:
        room = commit_metadata.PAUSE_AT * commit_metadata.LIMIT * 4 / 5
        tracker = self.tracker
        # What is surely small enough, as bits or as runs of three bytes, needs no measurement.
        if tracker.position - tracker.watermark < room * 8 or len(tracker) * 6 < room:
            return False
        now = time.monotonic()
        if now - self._measured > MEASURE_EVERY:
            self._measured = now
            self._fill = commit_metadata.fill(tracker.watermark, self._done_above())
        return self._fill >= commit_metadata.PAUSE_AT

    def _complain(self) -> None:
        now = time.monotonic()
        if self._warned and now - self._warned < WARN_EVERY:
            return
        self._warned = now
        logger.warning(
            "Fetching of %s-%d pauses: what is done above offset %d, which is not, takes %.0f %% "
            "of a commit's metadata; it goes on when that message, and others of the %d that are "
            "unfinished, are done.",
            *self.partition, self.tracker.watermark, self._fill * 100, len(self.tracker),
        )  # fmt: skip

    def statistics(self, lost: int = 0) -> Statistics:
        """Return how the partition stands; how much was `lost` is counted beyond a lane's life."""
        tracked = len(self.tracker)
        return Statistics(
            in_flight=self.in_flight,
            waiting=tracked - self.in_flight,
            tracked=tracked,
            watermark=self.tracker.watermark,
            position=self.tracker.position,
            committed=self.committed,
            metadata_fill=self._fill,
            paused_by=self._paused_by,
            redeliveries=self.redeliveries,
            journal_lines=self.journal.lines if self.journal else 0,
            lost=lost,
        )

    def close(self) -> None:
        """Close the journal's file."""
        if self.journal:
            self.journal.close()
