"""Queues as wholes: length, purge, deletion, single messages, priorities, time to live."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kombu import Consumer, Exchange, Queue
from kombu.exceptions import ChannelError

from kombu_kafka.queues import administration
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .conftest import Connect, Look, each_client


def _fill(connect: Connect, topic: str, count: int, **properties: Any) -> None:
    with connect().Producer().batch() as _, connect().channel() as channel:
        for number in range(count):
            channel.Producer().publish(number, routing_key=topic, partition=0, **properties)


def _length(connect: Connect, topic: str) -> int:
    declared = Queue(topic)(connect().channel()).queue_declare(passive=True)
    return int(declared.message_count)


def test_the_length_is_what_is_not_done(connect: Connect, topic: str) -> None:
    _fill(connect, topic, 3)
    connection = connect(partitions=[0], ordering="none", group_id=topic)
    queue = Queue(topic)(connection.channel())
    assert queue.queue_declare(passive=True).message_count == 3
    first, second = queue.get(), queue.get()
    second.ack()  # above `first`, which is not done
    eventually(lambda: queue.queue_declare(passive=True).message_count == 2)
    first.ack()
    eventually(lambda: queue.queue_declare(passive=True).message_count == 1)


def test_a_queue_that_is_not_there(connect: Connect, topic_name: str) -> None:
    queue = Queue(topic_name)(connect(partitions=[0]).channel())
    with pytest.raises(ChannelError, match="NOT_FOUND") as refused:
        queue.queue_declare(passive=True)
    assert refused.value.reply_code == 404
    assert queue.get() is None
    assert queue.purge() == 0
    queue.delete()
    queue.queue_declare()  # then its topic comes with the first message
    assert queue.queue_declare(passive=True).message_count == 0


def test_single_messages_are_got_acknowledged_and_rejected(
    connect: Connect, look: Look, topic: str, kafka: LocalKafka
) -> None:
    letters = f"{topic}-dlq"
    kafka.create_topic(letters, 1)
    _fill(connect, topic, 4)
    options = {"partitions": [0], "group_id": topic, "dead_letter_topic": letters}
    queue = Queue(topic)(connect(**options).channel())
    message = queue.get()
    assert (message.payload, message.delivery_info["redelivered"]) == (0, False)
    assert queue.get() is None  # a bound partition gives its next message when this one is done
    message.requeue()
    message = queue.get()
    assert (message.payload, message.delivery_info["redelivered"]) == (0, True)
    message.ack()
    queue.get().reject()
    eventually(lambda: [record.value for record in look.records(letters)] == [b"1"])
    assert eventually(lambda: queue.get(no_ack=True)).payload == 2
    assert queue.get(no_ack=True).payload == 3
    assert queue.get() is None
    eventually(lambda: look.committed(topic, topic)[0] == 4)


def test_what_was_got_and_not_acknowledged_comes_again(connect: Connect, topic: str) -> None:
    _fill(connect, topic, 1)
    for redelivery in range(2):
        connection = connect(partitions=[0], group_id=topic)
        message = Queue(topic)(connection.channel()).get()
        assert message.payload == 0, redelivery
        del message
        connection.release()


def test_what_comes_while_it_is_asked_where_the_queue_ends_is_got(
    connect: Connect, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the other way round: a message that was fetched is never taken for one that was got."""
    _fill(connect, topic, 1)
    connection = connect(partitions=[0], group_id=topic)
    queue = Queue(topic)(connection.channel())
    ends = administration.ends

    def answered_late(*asked: Any) -> Any:
        found = ends(*asked)
        inbox = connection.transport.consumer.inbox
        eventually(lambda: any(lane.waiting for lane in inbox.statistics().values()))
        return found

    monkeypatch.setattr(administration, "ends", answered_late)
    assert queue.get().payload == 0


def test_a_purge_leaves_nothing_to_deliver(connect: Connect, look: Look, topic: str) -> None:
    _fill(connect, topic, 20)
    connection = connect(partitions=[0], ordering="none", group_id=topic)
    with connection.channel() as channel:
        channel.basic_qos(prefetch_count=2)
        held: list[Any] = []
        with Consumer(channel, [Queue(topic)], on_message=held.append):
            while len(held) < 2:
                connection.drain_events(timeout=60)
            assert Queue(topic)(channel).purge() == 20
            for message in held:  # what was being worked on may be finished
                message.ack()
            _fill(connect, topic, 1)
            connection.drain_events(timeout=60)
            assert [message.payload for message in held] == [0, 1, 0]
            held[-1].ack()
    eventually(lambda: look.committed(topic, topic)[0] == 21)


def test_a_purge_without_workers_leaves_no_lag(connect: Connect, look: Look, topic: str) -> None:
    _fill(connect, topic, 5)
    queue = Queue(topic)(connect(group_id=topic).channel())
    assert queue.purge() == 5
    assert queue.queue_declare(passive=True).message_count == 0
    assert look.committed(topic, topic)[0] == 5
    assert queue.purge() == 0


@each_client
def test_a_deleted_queue_is_gone(connect: Connect, topic: str, admin: KafkaAdminClient) -> None:
    _fill(connect, topic, 1)
    connection = connect(partitions=[0], group_id=topic)
    exchange = Exchange("gone", type="direct")
    queue = Queue(topic, exchange, routing_key="go")(connection.channel())
    queue.declare()
    queue.delete(if_empty=True)
    assert topic in admin.list_topics()  # it holds a message
    with Consumer(connection.channel(), [queue], on_message=lambda message: message.ack()):
        queue.delete(if_unused=True)
        assert topic in admin.list_topics()  # it is being consumed
    queue.delete()
    eventually(lambda: topic not in admin.list_topics())
    assert not list(connection.transport.state.queue_bindings(topic))
    queue.delete()  # again is no error


def test_higher_priorities_go_first(
    connect: Connect, look: Look, topic: str, admin: KafkaAdminClient
) -> None:
    options = {"priority_steps": [0, 3, 6, 9], "group_id": topic}
    with connect(**options).Producer().batch() as _:
        publisher = connect(**options).Producer()
        for priority in (9, 4, 3, 0, 7, 0):
            publisher.publish(priority, routing_key=topic, partition=3, priority=priority)
    (described,) = admin.describe_topics([f"{topic}.priority-9"])
    assert len(described["partitions"]) == 4  # as many as the queue's own topic
    connection = connect(**options, partitions=[3])
    queue = Queue(topic)(connection.channel())
    assert queue.queue_declare(passive=True).message_count == 6
    got: list[int] = []

    def finish(message: Any) -> None:
        got.append(message.payload)
        message.ack()

    # So that all of them are there to choose from.
    first = queue.get()
    eventually(lambda: len(connection.transport.positions() or ()) == 4)
    inbox = connection.transport.consumer.inbox
    eventually(lambda: sum(map(len, (lane.order for lane in inbox._lanes.values()))) == 5)
    first.requeue()
    with Consumer(connection.channel(), [queue], on_message=finish):
        while len(got) < 6:
            connection.drain_events(timeout=60)
    assert got == [0, 0, 4, 3, 7, 9]
    queue.delete()
    eventually(lambda: not [name for name in admin.list_topics() if name.startswith(topic)])


def test_expired_messages_are_dropped(connect: Connect, look: Look, topic: str) -> None:
    publisher = connect().Producer()
    publisher.publish("late", routing_key=topic, partition=0, expiration=0.05)
    publisher.publish("in time", routing_key=topic, partition=0, expiration=600)
    time.sleep(0.06)
    connection = connect(partitions=[0, 1], group_id=topic)
    queue = Queue(topic, message_ttl=300)(connection.channel())
    queue.declare()
    message = queue.get()
    assert message.payload == "in time"
    message.ack()
    # The queue's own limit, on a record that is older than it.
    old = KafkaProducer(bootstrap_servers=list(connection.transport.options.hosts))
    ago = int(time.time() * 1000) - 301_000
    old.send(topic, b"1", partition=1, timestamp_ms=ago).get(60)
    old.send(topic, b"2", partition=1).get(60)
    old.close()
    assert eventually(queue.get).payload == 2
    assert eventually(lambda: look.committed(topic, topic)[1] == 1)
