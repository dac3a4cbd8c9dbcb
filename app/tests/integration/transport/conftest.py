"""Connections to the session's broker, and a look at what lies in Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaConsumer
from kafka.structs import TopicPartition
from kombu import Connection

from kombu_kafka.options import KAFKA_PYTHON, PUBLISHER_CLIENTS, Options
from kombu_kafka.publishing import producer
from kombu_kafka.topics import lag
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

Connect = Callable[..., Connection]

#: Seconds in which a broker answers that is there, however many others share its processors.
CONNECT_SECONDS = 60
#: Runs a test that publishes once with each client.
each_client = pytest.mark.parametrize("publisher_client", PUBLISHER_CLIENTS, indirect=True)


class Look:
    """Questions to the broker that go past the transport."""

    def __init__(self, kafka: LocalKafka) -> None:
        self._kafka = kafka
        self._options = Options.of(kafka.url(), {"connect_timeout": CONNECT_SECONDS})

    def records(self, topic: str) -> list[Any]:
        """Everything that lies in a topic, in the order of its partitions and offsets."""
        consumer = KafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap,
            enable_auto_commit=False,
            isolation_level="read_committed",
        )
        try:
            # A broker that has just started may not know its topics yet.
            numbers = eventually(lambda: consumer.partitions_for_topic(topic))
            partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            consumer.assign(partitions)
            consumer.seek_to_beginning()
            ends = consumer.end_offsets(partitions)
            found: list[Any] = []
            while any(consumer.position(tp) < ends[tp] for tp in partitions):
                for records in consumer.poll(timeout_ms=200).values():
                    found.extend(records)
            return sorted(found, key=lambda record: (record.partition, record.offset))
        finally:
            consumer.close()

    def committed(self, topic: str, group: str | None = None) -> dict[int, int | None]:
        """The group's committed offset of each partition."""
        options = replace(self._options, group_id=group) if group else self._options
        return {number: offset for number, (offset, _) in lag(options, topic).items()}


@pytest.fixture
def look(kafka: LocalKafka) -> Look:
    return Look(kafka)


@pytest.fixture
def publisher_client(request: pytest.FixtureRequest) -> str:
    """What publishes (`each_client`)."""
    return str(getattr(request, "param", KAFKA_PYTHON))


@pytest.fixture
def connect(kafka: LocalKafka, publisher_client: str) -> Iterator[Connect]:
    """Makes connections; all are ended with the test."""
    made: list[Connection] = []

    def make(url: str | None = None, ssl: Any = None, **options: Any) -> Connection:
        options = {
            "connect_timeout": CONNECT_SECONDS, "commit_interval": 0.05, "delay_dispatcher": False,
            "publisher_client": publisher_client, **options,
        }  # fmt: skip
        made.append(Connection(url or kafka.url(), ssl=ssl or False, transport_options=options))
        return made[-1]

    yield make
    for connection in made:
        transport = connection._transport
        connection.release()
        if transport is not None and "consumer" in transport.__dict__:
            transport.consumer.join()
    producer.close_all()


@pytest.fixture
def publish(kafka: LocalKafka) -> Callable[..., None]:
    """Publish numbered messages; over four partitions, where none is given."""

    def publish(topic: str, numbers: range, **kwargs: Any) -> None:
        options = {"connect_timeout": CONNECT_SECONDS}
        with Connection(kafka.url(), transport_options=options) as connection:
            producer = connection.Producer()
            for number in numbers:
                where = {"partition": number % 4, **kwargs}
                producer.publish({"n": number}, routing_key=topic, **where)

    return publish
