"""One level of the delay topic, read some way ahead."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import OffsetAndMetadata

from ..consuming import commit_metadata
from ..consuming.ranges import from_offset, merged
from . import messages as delay
from .messages import Delayed, UndeliverableError

__all__ = ("HOLD_MS", "Entry", "Level", "take")

#: A level of which the last record read has waited later than this is read no further for now:
#: milliseconds.
AHEAD_MS = 1000
#: Nor is one of which this much was read and not forwarded.
MAX_RECORDS = 6000
MAX_BYTES = 6 * 1024 * 1024
#: Nor is one where so many offsets lie between the first that was not forwarded and the last that was
#: read: one bit each fits into the text of a commit, with a thousand to spare.
MAX_SPAN = 24_000
#: What is due within this after it has waited stays until then, and goes to no other level:
#: milliseconds.
HOLD_MS = 3200
#: At most so many of a level stay: the rest of it must be read on.
MAX_HELD = 3000


class Entry:
    """A record that waits.

    Attributes:
        record: as it lies in the delay topic.
        level: in which level.
        delayed: what it says, or None.
        fault: why it can't be forwarded, or None.
        waited: when it has waited for as long as its level does, milliseconds since the epoch.
        due: when it goes to its topic; with a fault it does so at once.
        stays: whether it is held here until it is due.
    """

    __slots__ = ("delayed", "due", "fault", "level", "record", "stays", "waited")

    def __init__(self, record: ConsumerRecord, level: Level) -> None:
        self.record = record
        self.level = level
        self.delayed: Delayed | None = None
        self.fault: str | None = None
        self.stays = True
        self.waited: int = record.timestamp + delay.wait_ms(level.number)
        self.due: int = record.timestamp
        try:
            self.delayed = delay.read(record)
            self.due = self.delayed.due
        except UndeliverableError as exc:
            self.fault = str(exc)

    @property
    def ready(self) -> int:
        """When it goes on, milliseconds since the epoch; in a crowd earlier than this."""
        return self.due if self.due < self.waited + HOLD_MS else self.waited

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        record = self.record
        return 512 + len(record.value or b"") + len(record.key or b"")


class Level:
    """The records of a level that were read and not yet forwarded.

    They are forwarded in the order in which they are due, which is not that of their offsets. So
    what is committed is the offset below which all is forwarded and, as text beside it, what is
    forwarded above it.

    Arguments:
        number: which level.
        first: the partition's first offset.
        committed: what the group has committed, or None.
        topic: digest of the topic's id, to be told with each commit.
    """

    def __init__(
        self,
        number: int,
        first: int = 0,
        committed: OffsetAndMetadata | None = None,
        topic: str = "",
    ) -> None:
        self.number = number
        self._topic = topic
        #: Offset below which all is forwarded, as Kafka knows it.
        self.committed = first if committed is None else max(first, committed.offset)
        #: Offset of the next record to be read.
        self.position = self.committed
        #: When it may be looked at again after a fault, seconds of the monotonic clock.
        self.blocked_until = 0.0
        said = commit_metadata.decode(committed.metadata) if committed else None
        known = said.done if said and committed and said.watermark == committed.offset else ()
        #: Above the position, ascending: what was forwarded by the dispatcher before.
        self.known = deque(from_offset(known, self.position))
        #: Not forwarded, by offset, ascending. Not a dict: finding its first item again and again
        #: while deleting from its front takes quadratic time.
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        #: Those that have yet to wait, in the order in which they have waited.
        self._waiting: deque[Entry] = deque()
        #: By when they are due: those that stay until then, and those to go to another level.
        self._staying: list[tuple[int, int, Entry]] = []
        self._leaving: list[tuple[int, int, Entry]] = []
        self._last_waited = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, records: Iterable[ConsumerRecord]) -> None:
        """Take what was read."""
        for record in records:
            self.position = record.offset + 1
            if self._is_known(record.offset):
                continue
            entry = Entry(record, self)
            self._entries[record.offset] = entry
            self._bytes += entry.size
            self._last_waited = entry.waited
            left = entry.due - entry.waited
            # What would be left is less than the finest level waits, or there is room.
            entry.stays = left < delay.BASE_MS or (left < HOLD_MS and len(self._staying) < MAX_HELD)
            if entry.stays:
                self._open(entry)
            else:
                self._waiting.append(entry)

    def pass_over(self, position: int) -> None:
        """Note that what lies before `position` and was not read is nothing: marks of transactions."""
        self.position = max(self.position, position)

    def unforwarded(self, end: int) -> int:
        """How many offsets before `end` are not forwarded, transactions' ends among them."""
        known = from_offset(self.known, self.position)
        return len(self) + max(0, end - self.position) - sum(map(len, known))

    def ready_at(self) -> int | None:
        """When there is something to forward, milliseconds since the epoch; None if there isn't."""
        if self._leaving:
            return 0
        moments = [self._staying[0][0]] if self._staying else []
        if self._waiting:
            moments.append(self._waiting[0].waited)
        return min(moments, default=None)

    def forwarded(self, entries: Sequence[Entry]) -> None:
        """Drop entries that `take` gave: they are forwarded, and that is committed."""
        for entry in entries:
            del self._entries[entry.record.offset]
            self._bytes -= entry.size
        self.committed = next(iter(self._entries), self.position)

    def give_back(self, entry: Entry) -> None:
        """Have `take` give an entry again: it was not forwarded."""
        self._open(entry)

    def commit(self, leaving: Sequence[Entry]) -> OffsetAndMetadata:
        """Return what to tell Kafka when `leaving` are forwarded, besides all that is already."""
        gone = {entry.record.offset for entry in leaving}
        done: list[range] = []
        watermark, last = self.position, -1
        for offset in self._entries:
            if offset in gone:
                continue
            if last < 0:
                watermark = offset
            elif offset > last + 1:
                done.append(range(last + 1, offset))
            last = offset
        if 0 <= last < self.position - 1:
            done.append(range(last + 1, self.position))
        done = merged(done, from_offset(self.known, self.position))
        text = commit_metadata.encode("", watermark, done, topic=self._topic)
        return OffsetAndMetadata(watermark, text, -1)

    def full(self, now: int) -> bool:
        """Whether to read no further for now."""
        return self.read_on_at() > now

    def read_on_at(self) -> float:
        """When to read on, milliseconds since the epoch; infinity: not before some are forwarded."""
        if not self._entries:
            return 0
        if (
            len(self._entries) >= MAX_RECORDS
            or self._bytes >= MAX_BYTES
            or self.position - self.committed >= MAX_SPAN
        ):
            return math.inf
        return self._last_waited - AHEAD_MS

    def _is_known(self, offset: int) -> bool:
        while self.known and self.known[0].stop <= offset:
            self.known.popleft()
        return bool(self.known) and offset in self.known[0]

    def _open(self, entry: Entry) -> None:
        heap = self._staying if entry.stays else self._leaving
        heappush(heap, (entry.due, entry.record.offset, entry))

    def _look(self, now: int) -> None:
        while self._waiting and self._waiting[0].waited <= now:
            self._open(self._waiting.popleft())

    def _heap(self, *, due: bool) -> list[tuple[int, int, Entry]]:
        """Whence the next one comes: of all, when it is to be due, or of those that leave."""
        if not due or not self._staying:
            return self._leaving
        return min(self._staying, self._leaving) if self._leaving else self._staying


def take(levels: Sequence[Level], now: int, limit: int) -> list[Entry]:
    """Take what is to be forwarded next: what is due, and then what goes to other levels.

    Both by when they are due: what is not due yet can wait while there is more to do than can be
    done at once. Each entry is to be told of by `Level.forwarded`, or given back.

    Arguments:
        levels: those to take from.
        now: milliseconds since the epoch.
        limit: how many at most.
    """
    taken: list[Entry] = []
    for level in levels:
        level._look(now)
    for due in (True, False):
        heads = [
            (heap[0][0], n) for n, level in enumerate(levels) if (heap := level._heap(due=due))
        ]
        heapify(heads)
        while heads and len(taken) < limit:
            at, number = heappop(heads)
            if due and at > now:
                break
            taken.append(heappop(levels[number]._heap(due=due))[2])
            if heap := levels[number]._heap(due=due):
                heappush(heads, (heap[0][0], number))
    return taken
