"""Where the consumer's thread and the event loop meet: records in, acknowledgements back.

The one place that is locked. The consumer's thread pushes what it fetched and asks what may be
committed; the loop takes what may be worked on and, from whatever thread Celery's pool calls,
settles it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from itertools import count

from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from .journal import Journal
from .order import Order
from .tracker import OffsetTracker
from .wakeup import Wakeup

__all__ = ("Delivery", "Inbox")

logger = logging.getLogger(__name__)

#: Offsets kept of a partition, done ones above an unfinished one included, before fetching pauses.
MAX_TRACKED = 10_000

_tags = count(1)


@dataclass(frozen=True)
class Delivery:
    """A record on its way through a worker.

    Attributes:
        record: as fetched.
        redelivered: whether it was handed out before.
        tag: names it until it is settled; never used twice in a process.
    """

    record: ConsumerRecord
    redelivered: bool = False
    tag: int = field(default_factory=lambda: next(_tags))

    @property
    def partition(self) -> TopicPartition:
        """Where the record lies."""
        return TopicPartition(self.record.topic, self.record.partition)


@dataclass
class _Lane:
    """All that is known of one partition."""

    order: Order
    tracker: OffsetTracker
    journal: Journal | None
    committed: int
    redelivered: set[int] = field(default_factory=set)


class Inbox:
    """The partitions one consumer owns.

    Arguments:
        max_buffered: records waiting in a partition above which it is congested.
    """

    def __init__(self, max_buffered: int) -> None:
        self.wakeup = Wakeup()
        self._max_buffered = max_buffered
        self._lock = threading.Lock()
        self._lanes: dict[TopicPartition, _Lane] = {}
        self._in_flight: dict[int, Delivery] = {}
        self._turn = 0
        self._closed = False

    # The consumer's side

    def open(
        self,
        partition: TopicPartition,
        position: int,
        order: Order,
        journal: Journal | None,
        committed: int | None = None,
    ) -> None:
        """Begin a partition whose next record is at `position`.

        Arguments:
            partition: which one.
            position: offset of its next record.
            order: in which its records go out.
            journal: what is known as done, or None.
            committed: the offset that Kafka has for the group, or None.
        """
        with self._lock:
            told = -1 if committed is None else committed
            self._lanes[partition] = _Lane(order, OffsetTracker(position), journal, told)

    def push(
        self, partition: TopicPartition, records: Sequence[ConsumerRecord], position: int
    ) -> None:
        """Take records in the order of their offsets; what the journal knows as done is skipped.

        Arguments:
            partition: an open partition.
            records: what was fetched, none of it pushed before.
            position: where the consumer stands now.
        """
        skipped = 0
        with self._lock:
            lane = self._lanes[partition]
            done = lane.journal.done if lane.journal else {}
            for record in records:
                if done.get(record.offset) == record.timestamp:
                    lane.tracker.advance(record.offset + 1)
                    skipped += 1
                    continue
                lane.tracker.fetched(record.offset)
                lane.order.push(record)
            lane.tracker.advance(position)
        if records:
            self.wakeup.set()
        if skipped:
            logger.info(
                "Skipped %d records of %s-%d that the journal knows as done.",
                skipped, partition.topic, partition.partition,
            )  # fmt: skip

    def congested(self) -> set[TopicPartition]:
        """Partitions that should not be fetched from for now."""
        with self._lock:
            return {
                partition
                for partition, lane in self._lanes.items()
                if len(lane.order) >= self._max_buffered or len(lane.tracker) >= MAX_TRACKED
            }

    def watermarks(self, *, uncommitted: bool) -> dict[TopicPartition, int]:
        """Where each partition's watermark is; with `uncommitted`, only those Kafka is not told."""
        with self._lock:
            return {
                partition: lane.tracker.watermark
                for partition, lane in self._lanes.items()
                if not uncommitted or lane.tracker.watermark != lane.committed
            }

    def committed(self, watermarks: dict[TopicPartition, int]) -> None:
        """Kafka has these watermarks."""
        with self._lock:
            for partition, watermark in watermarks.items():
                lane = self._lanes[partition]
                lane.committed = watermark
                if lane.journal:
                    lane.journal.committed(watermark)

    def close(self) -> None:
        """Give nothing out any more; what is in flight can still be settled."""
        with self._lock:
            self._closed = True
        self.wakeup.set()

    def release(self) -> None:
        """Close the journals and the descriptor, when nothing will be settled any more."""
        with self._lock:
            for lane in self._lanes.values():
                if lane.journal:
                    lane.journal.close()
        self.wakeup.close()

    # The worker's side

    def take(self, topics: Container[str]) -> Delivery | None:
        """Give a record that may be worked on now, the partitions in turn; None if there is none.

        A `Delivery` must be settled or requeued: until then its partition may wait for it.

        Arguments:
            topics: those that have a consumer.
        """
        with self._lock:
            if self._closed:
                return None
            lanes = [lane for partition, lane in self._lanes.items() if partition.topic in topics]
            for step in range(len(lanes)):
                lane = lanes[(self._turn + step) % len(lanes)]
                record = lane.order.pop()
                if record is not None:
                    self._turn += step + 1
                    delivery = Delivery(record, redelivered=record.offset in lane.redelivered)
                    self._in_flight[delivery.tag] = delivery
                    return delivery
            return None

    def in_flight(self) -> int:
        """Number of deliveries not settled."""
        with self._lock:
            return len(self._in_flight)

    def find(self, tag: int) -> Delivery | None:
        """Return the delivery with this tag, or None if it is settled."""
        with self._lock:
            return self._in_flight.get(tag)

    def settle(self, tag: int) -> bool:
        """A delivery is done with: its offset may be committed, what waited for it may go.

        Returns:
            False if there is no such delivery (a late acknowledgement, dropped without harm).
        """
        with self._lock:
            delivery = self._in_flight.pop(tag, None)
            if delivery is None:
                return False
            record = delivery.record
            lane = self._lanes[delivery.partition]
            if lane.journal:
                lane.journal.append(record.offset, record.timestamp)
            lane.tracker.done(record.offset)
            lane.redelivered.discard(record.offset)
            lane.order.release(record)
        self.wakeup.set()
        return True

    def requeue(self, tag: int) -> bool:
        """A delivery was not worked on: it goes out again, in its place.

        Returns:
            False if there is no such delivery.
        """
        with self._lock:
            delivery = self._in_flight.pop(tag, None)
            if delivery is None:
                return False
            lane = self._lanes[delivery.partition]
            lane.redelivered.add(delivery.record.offset)
            lane.order.requeue(delivery.record)
        self.wakeup.set()
        return True
