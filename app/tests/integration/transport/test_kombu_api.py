"""What kombu documents, over Kafka."""

from __future__ import annotations

from typing import Any

from kombu import Consumer, Queue

from scheduler.local_broker import LocalKafka

from .conftest import Connect


def _fill(connect: Connect, topic: str, count: int, start: int = 0) -> None:
    publisher = connect().Producer()
    for number in range(start, start + count):
        publisher.publish(number, routing_key=topic, partition=0)


def _drain(connection: Any, done: Any, limit: int = 200) -> None:
    for _ in range(limit):
        if done():
            return
        connection.drain_events(timeout=20)


def test_a_full_channel_holds_up_no_other(connect: Connect, kafka: LocalKafka, topic: str) -> None:
    """Two queues, two channels, each with its own prefetch limit."""
    other = f"{topic}-other"
    kafka.create_topic(other, 1)
    _fill(connect, topic, 5)
    _fill(connect, other, 5)
    connection = connect(partitions=[0])
    held: list[Any] = []
    done: list[int] = []

    def finish(message: Any) -> None:
        done.append(message.payload)
        message.ack()

    slow = Consumer(connection.channel(), [Queue(topic)], on_message=held.append, prefetch_count=2)
    quick = Consumer(connection.channel(), [Queue(other)], on_message=finish, prefetch_count=1)
    with slow, quick:
        _drain(connection, lambda: len(done) == 5 and held)
        assert done == [0, 1, 2, 3, 4]
        assert [message.payload for message in held] == [0]  # a bound partition is in order


def test_two_channels_share_a_queue(connect: Connect, topic: str) -> None:
    _fill(connect, topic, 6)
    connection = connect(partitions=[0], ordering="none")
    got: dict[str, list[Any]] = {"one": [], "two": []}
    consumers = [
        Consumer(connection.channel(), [Queue(topic)], on_message=messages.append, prefetch_count=2)
        for messages in got.values()
    ]
    with consumers[0], consumers[1]:
        _drain(connection, lambda: sum(map(len, got.values())) == 4)
        assert {name: len(messages) for name, messages in got.items()} == {"one": 2, "two": 2}
        got["one"][-1].ack(multiple=True)
        _drain(connection, lambda: len(got["one"]) == 4)
    numbers = [message.payload for messages in got.values() for message in messages]
    assert sorted(numbers) == [0, 1, 2, 3, 4, 5]
