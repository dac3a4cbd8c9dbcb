"""What kombu documents, over Kafka."""

from __future__ import annotations

import pickle
import socket
from typing import Any

import pytest
from kombu import Consumer, Queue, pools
from kombu.mixins import ConsumerProducerMixin

import kombu_kafka
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .conftest import Connect, Look, each_client


def _fill(connect: Connect, topic: str, count: int, start: int = 0) -> None:
    publisher = connect().Producer()
    for number in range(start, start + count):
        publisher.publish(number, routing_key=topic, partition=0)


def _drain(connection: Any, done: Any, limit: int = 200) -> None:
    for _ in range(limit):
        if done():
            return
        connection.drain_events(timeout=60)


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


def test_a_simple_queue(connect: Connect, topic: str) -> None:
    connection = connect(partitions=[0, 1, 2, 3], group_id=topic)
    with connection.SimpleQueue(topic) as queue:
        for number in range(3):
            queue.put(number, partition=0)
        assert queue.qsize() == 3
        message = queue.get(timeout=60)
        assert message.payload == 0
        message.ack()
        assert queue.get(timeout=60).payload == 1
        with pytest.raises(queue.Empty):
            queue.get(timeout=0.2)  # the next one waits for the one that is not acknowledged
        eventually(lambda: queue.qsize() == 2)  # Kafka is told of the acknowledged one
        assert queue.clear() == 2


def test_a_simple_buffer(connect: Connect, topic_name: str) -> None:
    connection = connect(group_id=topic_name)
    with connection.SimpleBuffer(topic_name) as buffer:
        buffer.put({"n": 1})
        assert buffer.get(timeout=60).payload == {"n": 1}


def test_nothing_comes_within_the_timeout(connect: Connect, topic: str) -> None:
    connection = connect(partitions=[0], group_id=topic)
    with Consumer(connection.channel(), [Queue(topic)]), pytest.raises(socket.timeout):
        connection.drain_events(timeout=0.1)
    assert connection.heartbeat_check() is None


class Program(ConsumerProducerMixin):
    """Answers each number with its double, until it has answered three."""

    def __init__(self, connection: Any, questions: str, answers: str) -> None:
        self.connection = connection
        self._questions, self._answers = questions, answers
        self._done = 0

    def get_consumers(self, consumer: Any, channel: Any) -> list[Any]:
        return [consumer([Queue(self._questions)], on_message=self.on_message, prefetch_count=1)]

    def on_message(self, message: Any) -> None:
        self.producer.publish(message.payload * 2, routing_key=self._answers, retry=True)
        message.ack()
        self._done += 1
        self.should_stop = self._done == 3


def test_a_consumer_producer_program(
    connect: Connect, look: Look, kafka: LocalKafka, topic: str
) -> None:
    answers = f"{topic}-answers"
    kafka.create_topic(answers, 1)
    _fill(connect, topic, 3)
    Program(connect(partitions=[0], group_id=topic), topic, answers).run()
    assert [record.value for record in look.records(answers)] == [b"0", b"2", b"4"]


def test_a_connection_is_copied_pickled_and_pooled(
    connect: Connect, look: Look, topic: str
) -> None:
    connection = connect(group_id=topic)
    for copy in (connection.clone(), pickle.loads(pickle.dumps(connection))):
        assert copy.as_uri() == connection.as_uri()
        assert copy.transport.options == connection.transport.options
        assert copy.ensure_connection(max_retries=1).connected
        copy.release()
        assert not copy.connected
    assert connection.info()["transport"] == "kafka"
    with pools.producers[connection].acquire(block=True) as producer:
        producer.publish(1, routing_key=topic)
    with connection.Pool(2).acquire() as pooled:
        pooled.Producer().publish(2, routing_key=topic)
    publish = connection.ensure(connection.Producer(), connection.Producer().publish)
    publish(3, routing_key=topic)
    connection.collect()
    assert sorted(record.value for record in look.records(topic)) == [b"1", b"2", b"3"]
    pools.reset()


def test_brokers_that_are_not_there_are_passed_over(
    connect: Connect, look: Look, kafka: LocalKafka, topic: str
) -> None:
    connection = connect(f"kafka://127.0.0.1:1//t;{kafka.url(topic)}", connect_timeout=5)
    connection.ensure_connection(max_retries=3, interval_start=0, interval_step=0)
    assert connection.as_uri() == kafka.url(topic)
    connection.Producer().publish("here", routing_key=topic)
    assert len(look.records(topic)) == 1


@each_client
def test_thousands_are_confirmed_at_once(connect: Connect, look: Look, topic: str) -> None:
    publisher = connect().Producer()
    with kombu_kafka.bulk() as batch:
        for number in range(2000):
            publisher.publish(number, routing_key=topic, partition=number % 4)
        assert len(batch) == 2000
    assert len(look.records(topic)) == 2000
