"""What of one partition is outstanding, and the watermark below which all is done."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ("OffsetTracker",)


class OffsetTracker:
    """Follow one partition's offsets from fetch to acknowledgement.

    The watermark is the offset that may be committed: everything below it is done. It is the
    lowest outstanding offset or, where nothing is outstanding, the consumer's position; so it
    steps over gaps (transaction markers, compacted records) and lag can return to zero.

    Arguments:
        position: offset of the next record to be fetched.
    """

    def __init__(self, position: int) -> None:
        self._position = position
        #: Offset → done, ascending. Not a dict: finding a dict's first item again and again
        #: while deleting from its front takes quadratic time.
        self._outstanding: OrderedDict[int, bool] = OrderedDict()

    def __len__(self) -> int:
        """Number of offsets kept in memory: outstanding ones and those done above them."""
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
        self._outstanding[offset] = False
        self._position = offset + 1

    def advance(self, position: int) -> None:
        """Note that the consumer stands at `position`, past records that were not delivered."""
        self._position = max(self._position, position)

    def done(self, offset: int) -> None:
        """Count a record as done; an offset that is not outstanding is ignored."""
        if offset not in self._outstanding:
            return
        self._outstanding[offset] = True
        while self._outstanding:
            lowest = next(iter(self._outstanding))
            if not self._outstanding[lowest]:
                break
            del self._outstanding[lowest]
