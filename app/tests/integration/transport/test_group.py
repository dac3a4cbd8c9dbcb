"""Workers that share the partitions of a consumer group."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Connection

from scheduler.local_broker import LocalKafka

from .conftest import Connect, Look, eventually
from .members import Member, settled


@pytest.fixture
def publish(kafka: LocalKafka) -> Any:
    def publish(topic: str, numbers: range, **kwargs: Any) -> None:
        with Connection(kafka.url(), transport_options={"connect_timeout": 10}) as connection:
            producer = connection.Producer()
            for number in numbers:
                where = {"partition": number % 4, **kwargs}
                producer.publish({"n": number}, routing_key=topic, **where)

    return publish


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
