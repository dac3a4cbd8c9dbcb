"""The gate before delivery: which record of a partition may go out next.

An order takes a partition's records as they come (`push`), gives one when it may be worked on
(`pop`), and is told when that one is finished with (`release`). None of them is thread-safe:
:class:`~kombu_kafka.consuming.inbox.Inbox` holds the lock.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from kafka.consumer.fetcher import ConsumerRecord

__all__ = ("ORDERINGS", "FreeOrder", "KeyOrder", "Order", "PartitionOrder", "make_order")


class Order(Protocol):
    """What all orders do."""

    def push(self, record: ConsumerRecord) -> None:
        """Take the partition's next record."""

    def pop(self) -> ConsumerRecord | None:
        """Give a record that may be worked on now, or None."""

    def release(self, record: ConsumerRecord) -> None:
        """`record` is finished with: what waited for it may go."""

    def requeue(self, record: ConsumerRecord) -> None:
        """`record` was not worked on: it goes out again before anything that came after it."""

    def clear(self) -> list[ConsumerRecord]:
        """Give up all records that wait here, those out not among them."""

    def __len__(self) -> int:
        """How many records wait here, those out not counted."""


class FreeOrder:
    """No order: every record may go at once."""

    def __init__(self) -> None:
        self._waiting: deque[ConsumerRecord] = deque()

    def push(self, record: ConsumerRecord) -> None:
        self._waiting.append(record)

    def pop(self) -> ConsumerRecord | None:
        return self._waiting.popleft() if self._waiting else None

    def release(self, record: ConsumerRecord) -> None:
        pass

    def requeue(self, record: ConsumerRecord) -> None:
        self._waiting.appendleft(record)

    def clear(self) -> list[ConsumerRecord]:
        records = list(self._waiting)
        self._waiting.clear()
        return records

    def __len__(self) -> int:
        return len(self._waiting)


class PartitionOrder(FreeOrder):
    """One record of the partition at a time, strictly by offset."""

    def __init__(self) -> None:
        super().__init__()
        self._busy = False

    def pop(self) -> ConsumerRecord | None:
        if self._busy:
            return None
        record = super().pop()
        self._busy = record is not None
        return record

    def release(self, record: ConsumerRecord) -> None:
        self._busy = False

    def requeue(self, record: ConsumerRecord) -> None:
        super().requeue(record)
        self._busy = False


class KeyOrder:
    """One record of a key at a time, by offset; records without a key are free."""

    def __init__(self) -> None:
        self._ready: deque[ConsumerRecord] = deque()
        #: A key is here from its first record's push until its last record's release.
        self._held: dict[bytes, deque[ConsumerRecord]] = {}
        self._waiting = 0

    def push(self, record: ConsumerRecord) -> None:
        self._waiting += 1
        if record.key is None:
            self._ready.append(record)
        elif record.key in self._held:
            self._held[record.key].append(record)
        else:
            self._held[record.key] = deque()
            self._ready.append(record)

    def pop(self) -> ConsumerRecord | None:
        if not self._ready:
            return None
        self._waiting -= 1
        return self._ready.popleft()

    def release(self, record: ConsumerRecord) -> None:
        if record.key is None:
            return
        behind = self._held[record.key]
        if behind:
            self._ready.append(behind.popleft())
        else:
            del self._held[record.key]

    def requeue(self, record: ConsumerRecord) -> None:
        self._waiting += 1
        self._ready.appendleft(record)

    def clear(self) -> list[ConsumerRecord]:
        records = [*self._ready, *(record for behind in self._held.values() for record in behind)]
        for record in self._ready:
            self._held.pop(record.key, None)
        for behind in self._held.values():
            behind.clear()
        self._ready.clear()
        self._waiting = 0
        return records

    def __len__(self) -> int:
        return self._waiting


#: Name of an ordering, as set by ``ordering``, and what makes it.
_MAKERS: dict[str, type[FreeOrder] | type[PartitionOrder] | type[KeyOrder]] = {
    "partition": PartitionOrder,
    "key": KeyOrder,
    "none": FreeOrder,
}

#: The names that ``ordering`` may have.
ORDERINGS = tuple(_MAKERS)


def make_order(name: str) -> Order:
    """Return a new, empty order of this name (one of :data:`ORDERINGS`)."""
    return _MAKERS[name]()
