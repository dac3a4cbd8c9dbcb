"""Where the consumer's thread and the event loop meet: records in, acknowledgements back.

The one place that is locked. The consumer's thread pushes what it fetched and asks what may be
committed; the loop takes what may be worked on and, from whatever thread Celery's pool calls,
settles it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import OffsetAndMetadata, TopicPartition

from ..order import Order
from ..wakeup import Wakeup
from ..wording import counted
from .journal import Journal
from .progress import Lane, Statistics

__all__ = ("Delivery", "Inbox")

logger = logging.getLogger(__name__)

_tags = count(1)


@dataclass(slots=True, eq=False)
class Delivery:
    """A record on its way through a worker; not to be changed.

    Attributes:
        record: as fetched.
        redelivered: whether it was handed out before.
        attempts: how often it was begun and took its process down.
        tag: names it until it is settled; never used twice in a process.
    """

    record: ConsumerRecord
    redelivered: bool = False
    attempts: int = 0
    tag: int = field(default_factory=lambda: next(_tags))

    @property
    def partition(self) -> TopicPartition:
        """Where the record lies."""
        return TopicPartition(self.record.topic, self.record.partition)


class Inbox:
    """The partitions one consumer owns.

    Arguments:
        max_buffered: records waiting in a partition above which it is congested.
        owner: who owns them, for the metadata of commits.
        wakeup: set when there may be something to take; its own by default.
    """

    def __init__(self, max_buffered: int, owner: str = "", wakeup: Wakeup | None = None) -> None:
        self.wakeup = wakeup or Wakeup()
        self.owner = owner
        self._max_buffered = max_buffered
        self._lock = threading.Lock()
        self._lanes: dict[TopicPartition, Lane] = {}
        self._in_flight: dict[int, tuple[Delivery, Lane]] = {}
        #: Tag of the delivery that is under suspicion and out: there is one at most.
        self._suspect: int | None = None
        #: Whose turn it is, from the left.
        self._turns: deque[Lane] = deque()
        self._closed = False
        self._lease = math.inf
        #: How many records Kafka deleted before they were consumed.
        self._lost: Counter[TopicPartition] = Counter()

    # The consumer's side

    def open(
        self,
        partition: TopicPartition,
        position: int,
        order: Order,
        journal: Journal | None,
        committed: int | None = None,
        *,
        known: Sequence[range] = (),
        attempts: Mapping[int, int] | None = None,
        topic: str = "",
        epoch: int = -1,
        lost: int = 0,
    ) -> None:
        """Begin a partition whose next record is at `position`.

        Arguments:
            partition: which one.
            position: offset of its next record.
            order: in which its records go out.
            journal: what is known as done, or None.
            committed: the offset that Kafka has for the group, or None.
            known: what Kafka's metadata says is done above `position`.
            attempts: how often records were begun and not finished, by offset.
            topic: digest of the topic's id, for the metadata of commits.
            epoch: of the leader that wrote what lies before, as Kafka has it; -1 if unknown.
            lost: how many records before `position` were deleted before they were consumed.
        """
        lane = Lane(partition, position, order, journal, committed, known, attempts, topic, epoch)
        with self._lock:
            self._forget(partition)
            self._lanes[partition] = lane
            self._turns.append(lane)
            self._lost[partition] += lost

    def drop(self, partition: TopicPartition) -> int:
        """Forget a partition that this process no longer owns; unknown ones are ignored.

        Returns:
            How many of its deliveries were in flight: settling one of them has no effect.
        """
        with self._lock:
            lane = self._forget(partition)
            if lane is None:
                return 0
            late = [tag for tag, (_, other) in self._in_flight.items() if other is lane]
            for tag in late:
                del self._in_flight[tag]
                self._acquit(tag)
            lane.close()
        self.wakeup.set()
        return len(late)

    def topic(self, partition: TopicPartition) -> str:
        """Return the digest of a topic's id as it was when the partition was opened, or ""."""
        with self._lock:
            lane = self._lanes.get(partition)
            return lane.topic if lane else ""

    def pass_over(self, partition: TopicPartition, position: int) -> int:
        """Go on at `position`: what lies before it was deleted; what waits here is at hand, and stays.

        Returns:
            How many of those that were not fetched yet are not known as done.
        """
        with self._lock:
            lane = self._lanes.get(partition)
            lost = lane.pass_over(position) if lane else 0
            self._lost[partition] += lost
            return lost

    def partitions(self) -> set[TopicPartition]:
        """All that are open, held ones included."""
        with self._lock:
            return set(self._lanes)

    def hold(self, partition: TopicPartition, held: bool = True) -> None:
        """Hand out nothing more of a partition, or (`held` False) go on; unknown ones are ignored."""
        with self._lock:
            if partition in self._lanes:
                self._lanes[partition].held = held
        if not held:
            self.wakeup.set()

    def busy(self, partition: TopicPartition) -> int:
        """Number of a partition's deliveries that are not settled."""
        with self._lock:
            lane = self._lanes.get(partition)
            return lane.in_flight if lane else 0

    def lease(self, until: float) -> None:
        """Hand out nothing after `until` (`time.monotonic`): who owns what is not known then."""
        with self._lock:
            expired, self._lease = self._lease <= time.monotonic(), until
        if expired:
            self.wakeup.set()

    def push(
        self,
        partition: TopicPartition,
        records: Sequence[ConsumerRecord],
        position: int,
        epoch: int = -1,
    ) -> None:
        """Take records in the order of their offsets; what is known as done is skipped.

        Arguments:
            partition: an open partition.
            records: what was fetched, none of it pushed before.
            position: where the consumer stands now.
            epoch: of the leader that wrote what lies just before; -1 if unknown.
        """
        with self._lock:
            lane = self._lanes.get(partition)
            if lane is None:
                return
            skipped = lane.push(records, position, epoch)
        if records:
            self.wakeup.set()
        if skipped:
            logger.info(
                "Skipped %s of %s-%d, known as done.",
                counted(skipped, "record"), partition.topic, partition.partition,
            )  # fmt: skip

    def congested(self) -> set[TopicPartition]:
        """Partitions that should not be fetched from for now."""
        with self._lock:
            return {
                partition
                for partition, lane in self._lanes.items()
                if lane.congested(self._max_buffered)
            }

    def flowing(self) -> set[TopicPartition]:
        """Partitions to fetch from: open, not held, and not congested."""
        congested = self.congested()
        with self._lock:
            if self._closed:
                return set()
            return {tp for tp, lane in self._lanes.items() if not lane.held} - congested

    def quiet(self) -> bool:
        """Whether nothing can happen here before something is pushed, or a call from outside."""
        with self._lock:
            return all(lane.quiet and not lane.held for lane in self._lanes.values())

    def commits(self, *, uncommitted: bool) -> dict[TopicPartition, OffsetAndMetadata]:
        """What Kafka is to be told of each partition; with `uncommitted`, only what it isn't yet.

        The offset is the partition's watermark; the metadata says what is done above it.
        """
        with self._lock:
            commits = {
                partition: lane.commit(self.owner, uncommitted=uncommitted)
                for partition, lane in self._lanes.items()
            }
        return {partition: commit for partition, commit in commits.items() if commit is not None}

    def committed(self, commits: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Kafka has been told what the latest `commits` returned, or a part of that."""
        with self._lock:
            for partition, commit in commits.items():
                lane = self._lanes.get(partition)
                if lane is not None:
                    lane.was_committed(commit)

    def statistics(self) -> dict[TopicPartition, Statistics]:
        """How each partition stands; cheap, and may be asked from any thread."""
        with self._lock:
            return {
                partition: lane.statistics(self._lost[partition])
                for partition, lane in self._lanes.items()
            }

    def close(self) -> None:
        """Give nothing out any more; what is in flight can still be settled."""
        with self._lock:
            self._closed = True
        self.wakeup.set()

    def release(self) -> None:
        """Close the journals and the descriptor, when nothing will be settled any more."""
        with self._lock:
            for lane in self._lanes.values():
                lane.close()
        self.wakeup.close()

    def purged(self, topics: Container[str], *, deleted: bool = False) -> None:
        """The records of these topics were deleted: hand out none that waits here.

        Arguments:
            topics: which topics.
            deleted: whether they are gone themselves, so that nothing is to be committed.
        """
        with self._lock:
            for partition, lane in self._lanes.items():
                if partition.topic in topics:
                    lane.purge(deleted=deleted)

    def discard(self, partition: TopicPartition) -> None:
        """A partition holds other records than were fetched: hand out none, and commit nothing."""
        with self._lock:
            lane = self._lanes.get(partition)
            if lane is not None:
                lane.held = True
                lane.purge(deleted=True)

    def finished(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether nothing more can come, before something is settled, of what lies in Kafka now.

        Arguments:
            ends: the offset after the last record of each partition, as Kafka says.
        """
        with self._lock:
            # Without a lease what waits is not handed out for now, and will be.
            return time.monotonic() <= self._lease and all(
                lane.finished(ends[partition])
                for partition, lane in self._lanes.items()
                if partition in ends
            )

    # The worker's side

    def take(self, topics: Container[str]) -> Delivery | None:
        """Give a record that may be worked on now, the partitions in turn; None if there is none.

        A `Delivery` must be settled or requeued: until then its partition may wait for it. Of
        records that may have taken the process down in an earlier life, one is out at a time.

        Arguments:
            topics: those that have a consumer.
        """
        with self._lock:
            if self._closed or time.monotonic() > self._lease:
                return None
            found = self._next(topics)
            if found is None:
                return None
            lane, record = found
            delivery = Delivery(record, *lane.handed_out(record.offset))
            self._in_flight[delivery.tag] = delivery, lane
            if delivery.attempts and lane.is_suspect(record.offset):
                self._suspect = delivery.tag
            return delivery

    def _next(self, topics: Container[str]) -> tuple[Lane, ConsumerRecord] | None:
        """Give the next record of these topics, and where it lies; those that were asked go to the end."""
        turns, suspects, kept = self._turns, self._suspect is None, []
        found = None
        for _ in range(len(turns)):
            lane = turns.popleft()
            if lane.held or lane.partition.topic not in topics:
                kept.append(lane)  # another call may ask for it
                continue
            turns.append(lane)
            record = lane.next(suspects=suspects)
            if record is not None:
                found = lane, record
                break
        turns.extendleft(reversed(kept))
        return found

    def in_flight(self) -> int:
        """Number of deliveries not settled."""
        with self._lock:
            return len(self._in_flight)

    def find(self, tag: int) -> Delivery | None:
        """Return the delivery with this tag, or None if it is settled."""
        with self._lock:
            found = self._in_flight.get(tag)
            return found[0] if found else None

    def may_begin(self, tag: int) -> bool:
        """Whether a delivery that waited in this process is still its own to work on."""
        with self._lock:
            return tag in self._in_flight and time.monotonic() <= self._lease

    def settle(self, tag: int) -> bool:
        """A delivery is done with: its offset may be committed, what waited for it may go.

        Returns:
            False if there is no such delivery (a late acknowledgement, dropped without harm).
        """
        return self._end(tag, Lane.settle)

    def requeue(self, tag: int) -> bool:
        """A delivery was not worked on: it goes out again, in its place.

        Returns:
            False if there is no such delivery.
        """
        return self._end(tag, Lane.requeue)

    def _end(self, tag: int, how: Callable[[Lane, ConsumerRecord], object]) -> bool:
        with self._lock:
            found = self._in_flight.pop(tag, None)
            if found is None:
                return False
            delivery, lane = found
            how(lane, delivery.record)
            self._acquit(tag)
        self.wakeup.set()
        return True

    def attempt_failed(self, tag: int) -> int:
        """Count a delivery that took its process down.

        Returns:
            How many such attempts there were, this one counted; 0 if there is no such delivery.
        """
        with self._lock:
            found = self._in_flight.get(tag)
            return found[1].attempt_failed(found[0].record.offset) if found else 0

    def _forget(self, partition: TopicPartition) -> Lane | None:
        lane = self._lanes.pop(partition, None)
        if lane is not None:
            self._turns.remove(lane)
        return lane

    def _acquit(self, tag: int) -> None:
        if tag == self._suspect:
            self._suspect = None
