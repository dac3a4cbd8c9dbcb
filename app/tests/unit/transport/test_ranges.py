"""Ranges, against sets."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kombu_kafka.consuming.ranges import from_offset, merged, within

PAIRS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=8)


def _ranges(pairs: list[tuple[int, int]]) -> list[range]:
    ranges, last = [], 0
    for gap, length in pairs:
        ranges.append(range(last + gap, last + gap + length))
        last += gap + length
    return ranges


def _set(ranges: list[range]) -> set[int]:
    return {offset for found in ranges for offset in found}


@given(PAIRS, PAIRS, st.integers(0, 60))
def test_they_are_sets(one: list[tuple[int, int]], two: list[tuple[int, int]], at: int) -> None:
    a, b = _ranges(one), _ranges(two)
    assert within(a, at) == (at in _set(a))
    assert _set(from_offset(a, at)) == {offset for offset in _set(a) if offset >= at}
    both = merged(a, b)
    assert _set(both) == _set(a) | _set(b)
    assert all(x.stop < y.start for x, y in pairwise(both))
