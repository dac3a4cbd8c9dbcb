"""The gate before delivery, against a model."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kombu_kafka.order import make_order

KEYS = st.lists(st.sampled_from([None, b"a", b"b", b"c"]), max_size=40)
#: Each step: take one out (0), finish one (1), put one back (2); the number picks which.
STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 100)), max_size=200)


def _record(offset: int, key: bytes | None) -> Any:
    return SimpleNamespace(offset=offset, key=key)


def _group(ordering: str, record: Any) -> object:
    """Records of one group must be worked on one at a time, by offset; None is free."""
    if ordering == "none" or (ordering == "key" and record.key is None):
        return None
    return "partition" if ordering == "partition" else record.key


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
@given(keys=KEYS, steps=STEPS)
def test_never_two_of_a_group_at_once_never_out_of_order_none_lost(
    ordering: str, keys: list[bytes | None], steps: list[tuple[int, int]]
) -> None:
    order = make_order(ordering)
    for offset, key in enumerate(keys):
        order.push(_record(offset, key))
    out: list[Any] = []
    finished: dict[object, list[int]] = defaultdict(list)

    def take() -> bool:
        record = order.pop()
        if record is None:
            return False
        group = _group(ordering, record)
        if group is not None:
            assert group not in [_group(ordering, other) for other in out]
        out.append(record)
        return True

    def finish(which: int) -> None:
        record = out.pop(which % len(out))
        order.release(record)
        finished[_group(ordering, record)].append(record.offset)

    for action, which in steps:
        if action == 0:
            take()
        elif action == 1 and out:
            finish(which)
        elif action == 2 and out:
            order.requeue(out.pop(which % len(out)))
        assert len(order) + len(out) + sum(map(len, finished.values())) == len(keys)
    while take() or out:
        if out:
            finish(0)
    assert sorted(chain.from_iterable(finished.values())) == list(range(len(keys)))
    for group, offsets in finished.items():
        if group is not None:
            assert offsets == sorted(offsets)
