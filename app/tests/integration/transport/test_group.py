"""Workers that share the partitions of a consumer group."""

from __future__ import annotations

from typing import Any

from .conftest import Connect, Look, eventually
from .members import Member, settled


def test_two_share_four_partitions_and_one_takes_over(
    connect: Connect, look: Look, topic: str, publish: Any
) -> None:
    first = Member(connect(group_id=topic), topic)
    settled(topic, first, sizes=[4])
    publish(topic, range(40))
    eventually(lambda: len(first.got) == 40)
    second = Member(connect(group_id=topic), topic)
    settled(topic, first, second, sizes=[2, 2])
    publish(topic, range(40, 80))
    eventually(lambda: len(first.got) + len(second.got) == 80)
    assert sorted(first.numbers() + second.numbers()) == list(range(80))
    second.leave()
    settled(topic, first, sizes=[4])
    publish(topic, range(80, 120))
    eventually(lambda: len(first.got) + len(second.got) == 120)
    assert sorted(first.numbers() + second.numbers()) == list(range(120))
    first.leave()
