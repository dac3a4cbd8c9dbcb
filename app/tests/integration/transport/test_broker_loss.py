"""Losing brokers is weather: publishing and consuming go on, nothing is lost or out of order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue

from kombu_kafka.errors import BrokerUnavailableError
from kombu_kafka.publishing import producer
from scheduler.local_broker import LocalBrokerError, LocalKafka
from tests.eventually import eventually

from .members import Member, settled

TOPIC = "tasks"
COUNT = 400
PARTITIONS = 3
NEWS = Exchange("news", "fanout")


@pytest.fixture(scope="module")
def cluster(kafka: LocalKafka) -> Iterator[LocalKafka]:
    """Three brokers of our own: these tests kill them. (`kafka` says whether any can run.)"""
    try:
        cluster = LocalKafka(nodes=3).start(120)
    except LocalBrokerError as exc:  # the session's broker ran, so this is a fault
        pytest.fail(str(exc))
    cluster.create_topic(TOPIC, PARTITIONS)
    yield cluster
    producer.close_all()
    cluster.stop()


class Publisher(threading.Thread):
    """Publishes numbers, each again until it is confirmed, as Celery's publish retry does."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self.confirmed: list[int] = []
        self.errors = 0

    def run(self) -> None:
        with Connection(self._url) as connection:
            publisher = connection.Producer()
            number = 0
            while number < COUNT:
                try:
                    publisher.publish(number, routing_key=TOPIC, partition=number % PARTITIONS)
                except BrokerUnavailableError:
                    self.errors += 1
                    continue
                self.confirmed.append(number)
                number += 1


@pytest.mark.slow
def test_one_broker_of_three_is_killed_under_load(cluster: LocalKafka) -> None:
    publisher = Publisher(cluster.url())
    publisher.start()
    consumed: dict[int, list[int]] = {number: [] for number in range(PARTITIONS)}
    different: set[int] = set()

    def on_message(message: Any) -> None:
        consumed[message.delivery_info["partition"]].append(message.payload)
        different.add(message.payload)
        message.ack()
        if len(different) == COUNT // 4:
            cluster.nodes[0].kill()  # leads a partition and, as likely as not, the group's offsets

    options = {"partitions": list(range(PARTITIONS)), "connect_timeout": 10}
    with Connection(cluster.url(), transport_options=options) as connection:
        with Consumer(connection.channel(), [Queue(TOPIC)], on_message=on_message):
            while len(different) < COUNT:
                connection.drain_events(timeout=90)
        transport = connection.transport
    transport.consumer.join()
    publisher.join(120)
    assert publisher.confirmed == list(range(COUNT))
    for partition, numbers in consumed.items():
        expected = [number for number in range(COUNT) if number % PARTITIONS == partition]
        if publisher.errors == 0:
            assert numbers == expected
        assert list(dict.fromkeys(numbers)) == expected
    cluster.nodes[0].start()
    cluster.wait()


class Reader:
    """Hears what is published to an exchange, draining whatever happens to the brokers."""

    def __init__(self, connection: Connection) -> None:
        self.heard: list[str] = []
        self._connection = connection
        queue = Queue("news.reader", NEWS, auto_delete=True)
        self._consumer = Consumer(
            connection.channel(), [queue], no_ack=True,
            on_message=lambda message: self.heard.append(message.payload),
        )  # fmt: skip
        self._consumer.consume()

    def wait_for(self, word: str) -> None:
        """Nothing but a timeout is ever raised."""
        deadline = time.monotonic() + 120
        while word not in self.heard:
            assert time.monotonic() < deadline, f"{word} was not heard: {self.heard}"
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=1)


@pytest.mark.slow
def test_a_reader_of_an_exchange_goes_on_where_it_stood(cluster: LocalKafka) -> None:
    """The leader of its partition dies and comes back: nothing published is missed."""
    options = {"connect_timeout": 30}
    with (
        Connection(cluster.url(), transport_options=options) as reading,
        Connection(cluster.url(), transport_options=options) as writing,
    ):
        reader = Reader(reading)
        say = writing.Producer(exchange=NEWS).publish
        say("first")
        reader.wait_for("first")
        admin = cluster.admin()
        (described,) = admin.describe_topics(["news.exchange"])
        admin.close()
        leader = cluster.nodes[described["partitions"][0]["leader_id"] - 1]
        leader.kill()
        say("second")
        reader.wait_for("second")
        leader.start()
        cluster.wait()
        say("third")
        reader.wait_for("third")
    assert reader.heard == ["first", "second", "third"]


@pytest.mark.slow
def test_the_groups_coordinator_is_killed_while_it_rebalances(cluster: LocalKafka) -> None:
    """Two share a topic, the second joins as the coordinator dies: nothing is lost."""
    topic, count = "shared", 300
    cluster.create_topic(topic, PARTITIONS)
    options = {"group_id": topic, "connect_timeout": 10, "session_timeout": 6.0}

    def member() -> Member:
        return Member(Connection(cluster.url(), transport_options=options), topic)

    first = member()
    settled(topic, first, sizes=[PARTITIONS])
    with Connection(cluster.url()) as connection:
        publisher = connection.Producer()
        for number in range(count):
            publisher.publish({"n": number}, routing_key=topic, partition=number % PARTITIONS)
            if number == count // 3:
                coordinator = first.transport.consumer._ownership.client._coordinator
                known = eventually(coordinator.coordinator)
                dead = int(str(known).rpartition("-")[2])
                second = member()
                next(node for node in cluster.nodes if node.id == dead).kill()
    eventually(lambda: {*first.numbers(), *second.numbers()} == set(range(count)), 120)
    settled(topic, first, second, sizes=[1, 2])
    assert first.error is None
    assert second.error is None
    for one in (first, second):
        one.leave()
    next(node for node in cluster.nodes if node.id == dead).start()
    cluster.wait()
