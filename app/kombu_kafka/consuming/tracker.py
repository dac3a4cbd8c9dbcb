"""What of one partition is outstanding, and the watermark below which all is done."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ("OffsetTracker",)


class OffsetTracker:
    """Follow one partition's offsets from fetch to acknowledgement.

    The watermark is the offset that may be committed: everything below it is done. It is the
    lowest outstanding offset or, where nothing is outstanding, the consumer's position; so it
    steps over gaps (transaction markers, compacted records) and lag can return to zero.

    Only what is outstanding takes memory. What is done above the watermark is the rest of what
    was fetched, however much that is.

    Arguments:
        position: offset of the next record to be fetched.

    Attributes:
        changes: how often something became done; tells whether there is news for Kafka.
    """

    def __init__(self, position: int) -> None:
        self.changes = 0
        self._position = position
        #: Offsets in ascending order. Not a dict: finding a dict's first item again and again
        #: while deleting from its front takes quadratic time.
        self._outstanding: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        """Number of offsets that are outstanding, and so kept in memory."""
        return len(self._outstanding)

    @property
    def position(self) -> int:
        """Offset of the next record to be fetched."""
        return self._position

    @property
    def watermark(self) -> int:
        """Offset below which everything is done."""
        return next(iter(self._outstanding), self._position)

    def fetched(self, offset: int) -> None:
        """Count a record as outstanding; offsets must come in ascending order."""
        if offset < self._position:
            raise ValueError(f"offset {offset} was fetched behind position {self._position}")
        self._outstanding[offset] = None
        self._position = offset + 1

    def advance(self, position: int) -> None:
        """Note that the consumer stands at `position`, past records that were not delivered."""
        if position > self._position:
            self._position = position
            self.changes += 1

    def done(self, offset: int) -> None:
        """Count a record as done; an offset that is not outstanding is ignored."""
        if offset in self._outstanding:
            del self._outstanding[offset]
            self.changes += 1

    def done_above(self) -> list[range]:
        """Return what is done above the watermark, ascending: takes time by what is outstanding."""
        ranges: list[range] = []
        outstanding = iter(self._outstanding)
        last = next(outstanding, self._position)
        for offset in outstanding:
            if offset > last + 1:
                ranges.append(range(last + 1, offset))
            last = offset
        if last + 1 < self._position:
            ranges.append(range(last + 1, self._position))
        return ranges
