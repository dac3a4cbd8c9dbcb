"""The watermark, against a model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kombu_kafka.consuming.tracker import OffsetTracker


@given(gaps=st.lists(st.integers(0, 3), max_size=60), data=st.data())
def test_the_watermark_is_the_lowest_offset_that_is_not_done(
    gaps: list[int], data: st.DataObject
) -> None:
    tracker, offset, offsets = OffsetTracker(10), 9, []
    for gap in gaps:
        offset += 1 + gap
        tracker.fetched(offset)
        offsets.append(offset)
    tracker.advance(offset + 3)
    undone = set(offsets)
    for done in data.draw(st.permutations(offsets)):
        tracker.done(done)
        undone.discard(done)
        assert tracker.watermark == min(undone, default=tracker.position)
        above = {number for found in tracker.done_above() for number in found}
        # Gaps count as done: nothing will ever come of them.
        assert above == set(range(tracker.watermark + 1, tracker.position)) - undone
    assert tracker.watermark == tracker.position == offset + 3
    assert len(tracker) == 0


def test_a_position_behind_is_refused() -> None:
    tracker = OffsetTracker(5)
    tracker.fetched(5)
    with pytest.raises(ValueError, match="behind"):
        tracker.fetched(5)


def test_unknown_and_repeated_acknowledgements_do_nothing() -> None:
    tracker = OffsetTracker(0)
    tracker.fetched(0)
    tracker.done(7)
    assert tracker.watermark == 0
    tracker.done(0)
    tracker.done(0)
    assert tracker.watermark == 1


def test_cost_grows_in_a_straight_line() -> None:
    """Counted: an ordered dictionary finds its first item at once, which a dictionary does not."""

    def operations(count: int) -> int:
        tracker, counted = OffsetTracker(0), _Counted()
        assert type(tracker._outstanding) is OrderedDict
        tracker._outstanding = counted
        for offset in range(count):
            tracker.fetched(offset)
        for offset in range(count):
            tracker.done(offset)
            assert tracker.watermark == offset + 1
        return counted.operations

    assert operations(1000) == 10 * operations(100) + 9  # the last watermark is no item


class _Counted(OrderedDict[int, None]):
    """Counts what is asked of it, and each item that is taken from it."""

    operations = 0

    def __contains__(self, key: object) -> bool:
        self.operations += 1
        return super().__contains__(key)

    def __setitem__(self, key: int, value: None) -> None:
        self.operations += 1
        super().__setitem__(key, value)

    def __delitem__(self, key: int) -> None:
        self.operations += 1
        super().__delitem__(key)

    def __iter__(self) -> Iterator[int]:
        for key in super().__iter__():
            self.operations += 1
            yield key
