"""Publishing: what lies in Kafka afterwards, and what the publisher is told when it can't be."""

from __future__ import annotations

import time

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewPartitions
from kombu import Exchange, Queue

import kombu_kafka
from kombu_kafka.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    PartitionNotFoundError,
    PublishError,
)
from kombu_kafka.exchanges.routing import topic_name as topic_of
from tests.eventually import eventually

from .conftest import Connect, Look, each_client

pytestmark = each_client


def test_the_record_is_native(connect: Connect, look: Look, topic: str) -> None:
    connect().Producer().publish(
        {"größe": 1},
        routing_key=topic,
        partition=2,
        partition_key="order-42",
        headers={"task": "t", "id": "1", "retries": 3},
        correlation_id="1",
    )
    (record,) = look.records(topic)
    headers = dict(record.headers)
    assert (record.partition, record.key) == (2, b"order-42")
    assert record.value == '{"größe": 1}'.encode() or record.value == b'{"gr\\u00f6\\u00dfe": 1}'
    assert headers["content-type"] == b"application/json"
    assert headers["task"] == b"t"
    assert headers["retries"] == b"3"
    assert headers["amqp-correlation_id"] == b"1"


def test_a_bulk_keeps_its_order(connect: Connect, look: Look, topic: str) -> None:
    """What is waited for and what is not leave by the same way."""
    producer = connect().Producer()
    with kombu_kafka.bulk() as batch:
        for number in range(300):
            producer.publish(
                {}, routing_key=topic, partition=0, correlation_id=str(number),
                delivery_mode=1 + number % 2,
            )  # fmt: skip
        assert len(batch) == 150
    producer.publish({}, routing_key=topic, partition=0, correlation_id="300")
    sent = [dict(record.headers)["amqp-correlation_id"].decode() for record in look.records(topic)]
    assert sent == [str(number) for number in range(301)]


@pytest.mark.parametrize(
    ("key", "murmur2"),  # of Kafka's own UtilsTest
    [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)],
)
def test_a_key_goes_where_kafkas_own_clients_send_it(
    connect: Connect, look: Look, topic: str, key: str, murmur2: int
) -> None:
    connect().Producer().publish({}, routing_key=topic, partition_key=key)
    (record,) = look.records(topic)
    assert record.partition == (murmur2 & 0x7FFFFFFF) % 4


def test_a_partition_added_meanwhile_is_found(
    connect: Connect, look: Look, topic: str, admin: KafkaAdminClient
) -> None:
    producer = connect().Producer()
    producer.publish({}, routing_key=topic, partition=0)
    admin.create_partitions({topic: NewPartitions(6)})
    producer.publish({}, routing_key=topic, partition=5)
    assert [record.partition for record in look.records(topic)] == [0, 5]


@pytest.mark.parametrize("partition", [99, -1, "0"])
def test_a_partition_that_does_not_exist(connect: Connect, topic: str, partition: object) -> None:
    with pytest.raises((PartitionNotFoundError, PublishError), match="partition"):
        connect().Producer().publish({}, routing_key=topic, partition=partition)


def test_a_message_too_large(connect: Connect, look: Look, topic: str) -> None:
    with pytest.raises(PublishError, match="too large"):
        connect().Producer().publish("x" * 2_000_000, routing_key=topic)
    assert look.records(topic) == []


def test_a_name_that_no_topic_can_have_lies_in_one_like_it(
    connect: Connect, look: Look, topic_name: str
) -> None:
    """Celery's own worker_direct names queues so: ``worker@host.dq2``."""
    queue = f"{topic_name}@host"
    connect().Producer().publish({}, routing_key=queue)
    assert len(look.records(topic_of(queue))) == 1
    assert topic_of(queue).startswith(f"{topic_name}_host-")


def test_a_key_that_is_no_text(connect: Connect, topic: str) -> None:
    with pytest.raises(PublishError, match="partition key"):
        connect().Producer().publish({}, routing_key=topic, partition_key=["a"])


def test_a_header_that_cant_be_sent(connect: Connect, topic: str) -> None:
    with pytest.raises(PublishError, match="'bad' holds a set"):
        connect().Producer().publish({}, routing_key=topic, headers={"bad": {1}})


def test_nobody_is_bound(connect: Connect, topic_name: str) -> None:
    with connect().channel() as channel:
        exchange = Exchange(topic_name, type="topic")(channel)
        exchange.declare()
        with pytest.raises(PublishError, match="No queue is bound"):
            channel.Producer().publish({}, exchange=exchange, routing_key="a.b", delivery_mode=2)
        channel.Producer().publish({}, exchange=exchange, routing_key="a.b", delivery_mode=1)


def test_a_declared_exchange_leads_to_its_queue(connect: Connect, look: Look, topic: str) -> None:
    queue = Queue(topic, Exchange("ours", type="direct"), routing_key="go")
    connect().Producer().publish(
        {}, exchange=queue.exchange, routing_key="go", declare=[queue], delivery_mode=2
    )
    assert len(look.records(topic)) == 1


def test_a_queue_that_was_deleted_begins_anew_with_the_next_message(
    connect: Connect, look: Look, topic: str, admin: KafkaAdminClient
) -> None:
    """Whatever this process knew of its topic: it is another one."""
    publisher = connect().Producer()
    publisher.publish(1, routing_key=topic)
    Queue(topic)(connect().channel()).delete()
    eventually(lambda: topic not in admin.list_topics())
    publisher.publish(2, routing_key=topic)
    assert [record.value for record in look.records(topic)] == [b"2"]


def test_brokers_that_are_not_there(connect: Connect) -> None:
    started = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1 answered within 1 seconds"):
        connect("kafka://127.0.0.1:1//tasks", connect_timeout=1).connect()
    assert time.monotonic() - started < 25  # by default it would be 30


def test_a_url_that_is_wrong(connect: Connect) -> None:
    with pytest.raises(ConfigurationError, match="is not host:port"):
        connect("kafka://127.0.0.1:x//tasks").connect()
