"""Sets of offsets as ranges: ascending, apart from each other, of step 1."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

__all__ = ("below", "from_offset", "merged", "within")


def within(ranges: Sequence[range], offset: int) -> bool:
    """Say whether `offset` lies in one of the ranges."""
    index = bisect_right(ranges, offset, key=_start)
    return index > 0 and offset in ranges[index - 1]


def below(ranges: Iterable[range], offset: int) -> list[range]:
    """Return the part of the ranges that lies below `offset`."""
    return [range(found.start, min(found.stop, offset)) for found in ranges if found.start < offset]


def from_offset(ranges: Iterable[range], offset: int) -> list[range]:
    """Return the part of the ranges that lies at `offset` and above."""
    return [range(max(found.start, offset), found.stop) for found in ranges if found.stop > offset]


def merged(*sets: Iterable[range]) -> list[range]:
    """Return the ranges of all the sets as one."""
    joined: list[range] = []
    for found in sorted((found for ranges in sets for found in ranges), key=_start):
        if joined and found.start <= joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, found.stop))
        else:
            joined.append(found)
    return joined


def _start(found: range) -> int:
    return found.start
