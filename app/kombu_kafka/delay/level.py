"""One level of the delay topic, read some way ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from kafka.consumer.fetcher import ConsumerRecord

from . import messages as delay
from .messages import Delayed, UndeliverableError

__all__ = ("Entry", "Level")

#: A level whose last record read is ready later than this is read no further for now: milliseconds.
AHEAD_MS = 1000
#: Nor is one of which this much was read.
MAX_RECORDS = 5000
MAX_BYTES = 4 * 1024 * 1024


class Entry:
    """A record that waits.

    Attributes:
        record: as it lies in the delay topic.
        delayed: what it says, or None.
        fault: why it can't be forwarded, or None.
        ready: when it goes to the next level or to its topic, milliseconds since the epoch.
    """

    __slots__ = ("delayed", "fault", "ready", "record")

    def __init__(self, record: ConsumerRecord, level: int) -> None:
        self.record = record
        self.delayed: Delayed | None = None
        self.fault: str | None = None
        self.ready: int = record.timestamp
        try:
            self.delayed = delay.read(record)
        except UndeliverableError as exc:
            self.fault = str(exc)
            return
        waited = record.timestamp + delay.wait_ms(level)
        due = self.delayed.due
        # What would be left is less than the finest level waits: hold it until it is due.
        self.ready = due if due < waited + delay.BASE_MS else waited

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        record = self.record
        return 512 + len(record.value or b"") + len(record.key or b"")


class Level:
    """The records of a level that were read and not yet forwarded, by offset.

    Arguments:
        number: which level.
        position: offset that the group has committed, or the partition's first.
    """

    def __init__(self, number: int, position: int) -> None:
        self.number = number
        #: Offset below which all is forwarded.
        self.committed = position
        #: When it may be looked at again after a fault, seconds of the monotonic clock.
        self.blocked_until = 0.0
        self._entries: deque[Entry] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, records: Iterable[ConsumerRecord]) -> None:
        """Take what was read."""
        for record in records:
            entry = Entry(record, self.number)
            self._entries.append(entry)
            self._bytes += entry.size

    def ready_at(self) -> int | None:
        """When the head is ready, milliseconds since the epoch; None without one."""
        return self._entries[0].ready if self._entries else None

    def ready(self, now: int, limit: int) -> Iterator[Entry]:
        """Return the entries from the head on that are ready, `limit` at most; they stay."""
        for entry in islice(self._entries, limit):
            if entry.ready > now:
                return
            yield entry

    def forwarded(self, count: int) -> None:
        """Drop entries from the head: they are forwarded, and that is committed."""
        for _ in range(count):
            entry = self._entries.popleft()
            self._bytes -= entry.size
            self.committed = entry.record.offset + 1

    def full(self, now: int) -> bool:
        """Whether to read no further for now."""
        return bool(self._entries) and (
            self._entries[-1].ready > now + AHEAD_MS
            or len(self._entries) >= MAX_RECORDS
            or self._bytes >= MAX_BYTES
        )
