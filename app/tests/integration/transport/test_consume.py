"""Consuming: order, acknowledgement, what is committed, and what becomes a dead letter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kombu import Connection, Consumer, Queue
from kombu.exceptions import DecodeError

from kombu_kafka.errors import ConsumerFailedError, PartitionNotFoundError
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .conftest import Connect, Look


class Reader:
    """Consumes a topic over a connection, keeping each message until told."""

    def __init__(self, connection: Connection, topic: str, **kwargs: Any) -> None:
        self.connection = connection
        self.messages: list[Any] = []
        self.consumer = Consumer(
            connection.channel(), queues=[Queue(topic)], on_message=self.messages.append, **kwargs
        )
        self.consumer.consume()

    def read(self, timeout: float = 60) -> Any:
        """Return the next message."""
        before = len(self.messages)
        self.connection.drain_events(timeout=timeout)
        assert len(self.messages) == before + 1
        return self.messages[-1]

    def nothing(self) -> bool:
        """Whether no message comes (for as long as a fetch takes)."""
        with pytest.raises(TimeoutError):
            self.connection.drain_events(timeout=0.7)
        return True


def _publish(connection: Connection, topic: str, count: int, **kwargs: Any) -> None:
    producer = connection.Producer()
    for number in range(count):
        producer.publish({"n": number}, routing_key=topic, **{"partition": 0, **kwargs})


def test_one_at_a_time_in_order(connect: Connect, topic: str) -> None:
    _publish(connect(), topic, 3)
    reader = Reader(connect(partitions=[0]), topic)
    for number in range(3):
        message = reader.read()
        assert message.payload == {"n": number}
        assert message.delivery_info["offset"] == number
        assert message.headers["kafka_offset"] == number
        if number == 0:
            assert reader.nothing()
        message.ack()


def test_bound_partitions_only(connect: Connect, topic: str) -> None:
    for partition in range(4):
        _publish(connect(), topic, 1, partition=partition)
    reader = Reader(connect(partitions=[1, 3]), topic)
    assert {reader.read().delivery_info["partition"] for _ in range(2)} == {1, 3}
    assert reader.nothing()


def test_nothing_is_committed_past_an_unfinished_message(
    connect: Connect, look: Look, topic: str
) -> None:
    _publish(connect(), topic, 3)
    reader = Reader(connect(partitions=[0], ordering="none"), topic)
    first, second, third = (reader.read() for _ in range(3))
    second.ack()
    third.ack()
    with pytest.raises(TimeoutError):
        reader.connection.drain_events(timeout=0.5)
    assert not look.committed(topic)[0]
    first.ack()
    eventually(lambda: look.committed(topic)[0] == 3)


def test_what_was_not_acknowledged_comes_again(connect: Connect, topic: str) -> None:
    _publish(connect(), topic, 2)
    reader = Reader(connect(partitions=[0]), topic)
    reader.read().ack()
    reader.read()
    transport = reader.connection.transport
    reader.connection.release()
    transport.consumer.join()
    again = Reader(connect(partitions=[0]), topic)
    assert again.read().payload == {"n": 1}


def test_a_message_acknowledged_after_the_connection_closed_counts(
    connect: Connect, look: Look, topic: str
) -> None:
    _publish(connect(), topic, 1)
    reader = Reader(connect(partitions=[0]), topic)
    message = reader.read()
    reader.connection.release()
    message.ack()
    eventually(lambda: look.committed(topic)[0] == 1)


def test_a_new_connection_waits_for_what_the_old_one_began(connect: Connect, topic: str) -> None:
    _publish(connect(), topic, 2)
    old = Reader(connect(partitions=[0]), topic)
    begun = old.read()
    old.connection.release()
    new = Reader(connect(partitions=[0]), topic)
    assert new.nothing()
    begun.ack()
    assert new.read().payload == {"n": 1}


def test_the_urls_topic_is_celerys_default_queue(
    connect: Connect, look: Look, topic: str, kafka: LocalKafka
) -> None:
    """So that an app that names no queue need change nothing but its broker URL."""
    url = kafka.url(topic)
    _publish(connect(url), "celery", 1)
    assert len(look.records(topic)) == 1
    message = Reader(connect(url, partitions=[0]), "celery").read()
    assert message.delivery_info["routing_key"] == topic
    message.ack()
    eventually(lambda: look.committed(topic)[0] == 1)


def test_early_acknowledgement(connect: Connect, look: Look, topic: str) -> None:
    _publish(connect(), topic, 3)
    reader = Reader(connect(partitions=[0], ordering="none"), topic, no_ack=True)
    for _ in range(3):
        reader.read()
    eventually(lambda: look.committed(topic)[0] == 3)


def test_prefetch_limit(connect: Connect, topic: str) -> None:
    _publish(connect(), topic, 3)
    reader = Reader(connect(partitions=[0], ordering="none"), topic, prefetch_count=2)
    first, _ = reader.read(), reader.read()
    assert reader.nothing()
    first.ack()
    assert reader.read().payload == {"n": 2}


def test_requeue_is_in_place(connect: Connect, topic: str) -> None:
    _publish(connect(), topic, 2)
    reader = Reader(connect(partitions=[0]), topic)
    reader.read().requeue()
    again = reader.read()
    assert again.payload == {"n": 0}
    assert again.delivery_info["redelivered"]
    again.ack()
    assert reader.read().payload == {"n": 1}


def test_a_cancelled_queue_stays_silent(connect: Connect, topic: str) -> None:
    _publish(connect(), topic, 2)
    reader = Reader(connect(partitions=[0]), topic)
    reader.read().ack()
    reader.consumer.cancel()
    assert reader.nothing()
    reader.consumer.consume()
    assert reader.read().payload == {"n": 1}


def test_lag_returns_to_zero_over_transaction_markers(
    connect: Connect, look: Look, topic: str, kafka: LocalKafka
) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic)
    producer.init_transactions()
    for abort in (False, True):
        producer.begin_transaction()
        producer.send(topic, value=b"{}", partition=0).get(60)
        producer.abort_transaction() if abort else producer.commit_transaction()
    producer.close()
    reader = Reader(connect(partitions=[0]), topic)
    reader.read().ack()
    eventually(lambda: look.committed(topic)[0] == 4)  # two records, two markers
    assert reader.nothing()


def _raw(kafka: LocalKafka, topic: str, records: list[dict[str, Any]]) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for record in records:
        producer.send(topic, partition=0, **record).get(60)
    producer.close()


def test_poison_becomes_a_dead_letter_byte_for_byte_and_the_partition_moves_on(
    connect: Connect, look: Look, topic: str, kafka: LocalKafka
) -> None:
    poison: list[dict[str, Any]] = [
        {"value": b"\x00\xff", "key": b"\xfe", "headers": [("x", b"\xff"), ("x", b"")]},
        {"value": None, "key": b"k"},
        {"value": b"{}", "headers": [("task", b"t")]},
    ]
    _raw(kafka, topic, poison)
    _publish(connect(), topic, 1)
    letters = f"{topic}-dlq"
    kafka.create_topic(letters, 1)
    reader = Reader(connect(partitions=[0], dead_letter_topic=letters), topic)
    while not reader.messages:
        reader.connection.drain_events(timeout=60)
    reader.messages[0].ack()
    eventually(lambda: look.committed(topic)[0] == 4)
    found = look.records(letters)
    assert len(found) == 3
    for offset, (sent, letter) in enumerate(zip(poison, found, strict=True)):
        assert letter.key == sent.get("key")
        assert letter.value == (sent["value"] or b"")
        assert letter.headers[: len(sent.get("headers", ()))] == sent.get("headers", [])
        about = dict(letter.headers)
        assert about["dlq-reason"] == b"undecodable"
        assert about["dlq-topic"] == topic.encode()
        assert (about["dlq-partition"], about["dlq-offset"]) == (b"0", str(offset).encode())
        assert about["dlq-message"]
    assert dict(found[1].headers)["dlq-null-value"] == b"true"


def test_a_body_that_cant_be_decoded_is_not_lost_by_its_acknowledgement(
    connect: Connect, look: Look, topic: str, kafka: LocalKafka
) -> None:
    _raw(kafka, topic, [{"value": b"{not json", "headers": []}])
    letters = f"{topic}-dlq"
    kafka.create_topic(letters, 1)
    reader = Reader(connect(partitions=[0], dead_letter_topic=letters), topic)
    message = reader.read()
    with pytest.raises(DecodeError):
        message.decode()
    message.ack()
    eventually(lambda: look.committed(topic)[0] == 1)
    (letter,) = look.records(letters)
    assert letter.value == b"{not json"
    assert dict(letter.headers)["dlq-reason"] == b"undecodable"


def test_rejection_is_a_dead_letter(
    connect: Connect, look: Look, topic: str, kafka: LocalKafka
) -> None:
    _publish(connect(), topic, 1, headers={"a": "b"}, partition_key="k")
    letters = f"{topic}-dlq"
    kafka.create_topic(letters, 1)
    Reader(connect(partitions=[0], dead_letter_topic=letters), topic).read().reject()
    (letter,) = eventually(lambda: look.records(letters))
    (original,) = look.records(topic)
    assert (letter.value, letter.key) == (original.value, original.key)
    assert letter.headers[: len(original.headers)] == original.headers
    assert dict(letter.headers)["dlq-reason"] == b"rejected"


def test_a_letter_too_large_keeps_where_its_record_lies(
    connect: Connect, look: Look, topic: str, kafka: LocalKafka
) -> None:
    letters = f"{topic}-dlq"
    kafka.create_topic(letters, 1)
    connect().Producer().publish("x" * 1_048_300, routing_key=topic, partition=0)
    Reader(connect(partitions=[0], dead_letter_topic=letters), topic).read().reject()
    (letter,) = eventually(lambda: look.records(letters))
    about = dict(letter.headers)
    assert letter.value == b""
    assert (about["dlq-value-omitted"], about["dlq-offset"]) == (b"too large", b"0")
    eventually(lambda: look.committed(topic)[0] == 1)


def test_a_letter_whose_headers_are_too_large(
    connect: Connect, look: Look, topic: str, kafka: LocalKafka
) -> None:
    letters = f"{topic}-dlq"
    kafka.create_topic(letters, 1)
    _raw(kafka, topic, [{"value": None, "key": b"k", "headers": [("big", b"x" * 1_048_400)]}])
    _publish(connect(), topic, 1)
    reader = Reader(connect(partitions=[0], dead_letter_topic=letters), topic)
    while not reader.messages:
        reader.connection.drain_events(timeout=60)
    (letter,) = look.records(letters)
    about = dict(letter.headers)
    assert "big" not in about
    assert about["dlq-headers-omitted"] == b"too large"
    assert about["dlq-offset"] == b"0"


def test_a_partition_that_does_not_exist(connect: Connect, topic: str) -> None:
    reader = Reader(connect(partitions=[9]), topic)
    assert reader.connection.transport.positions() is None
    with pytest.raises(PartitionNotFoundError, match="has no partition 9"):
        reader.connection.drain_events(timeout=60)


def test_positions_tell_when_all_is_ready_and_lag_can_be_read_at_once(
    connect: Connect, look: Look, topic: str
) -> None:
    reader = Reader(connect(partitions=[0, 2]), topic)
    positions = eventually(reader.connection.transport.positions)
    assert positions == {(topic, 0): 0, (topic, 2): 0}
    eventually(lambda: look.committed(topic) == {0: 0, 1: None, 2: 0, 3: None})


KILLED = """
import os, sys
import kombu_kafka
from kombu import Connection, Consumer, Queue
url, topic, state = sys.argv[1:]
options = {"partitions": [0], "state_directory": state, "commit_interval": 3600}
connection = Connection(url, transport_options=options)
seen = []
def on_message(message):
    seen.append(message.delivery_info["offset"])
    if len(seen) == 30:
        print(*seen, flush=True)
        os._exit(9)  # in flight: not acknowledged
    message.ack()
with Consumer(connection.channel(), queues=[Queue(topic)], on_message=on_message):
    while True:
        connection.drain_events(timeout=60)
"""


@pytest.mark.parametrize("journal", [True, False])
def test_a_killed_process_repeats_only_what_was_in_flight(
    connect: Connect, look: Look, topic: str, kafka: LocalKafka, tmp_path: Path, journal: bool
) -> None:
    _publish(connect(), topic, 40)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, kafka.url(), topic, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ,
        check=False,
    )
    assert killed.returncode == 9, killed.stderr
    done = [int(offset) for offset in killed.stdout.split()]
    assert done == list(range(30))
    assert not look.committed(topic)[0]
    state = str(tmp_path) if journal else None
    reader = Reader(connect(partitions=[0], state_directory=state), topic)
    seen: list[int] = []
    while not seen or seen[-1] < 39:
        message = reader.read()
        seen.append(message.delivery_info["offset"])
        message.ack()
    # Without the journal all since the last commit runs again: that is what it is for.
    assert seen == list(range(29 if journal else 0, 40))


def test_a_consumer_that_failed_is_heard_of_and_keeps_what_it_began(
    connect: Connect, look: Look, topic: str
) -> None:
    _publish(connect(), topic, 2)
    reader = Reader(connect(partitions=[0]), topic)
    begun = reader.read()
    reader.connection.transport.consumer._step = lambda: 1 / 0
    with pytest.raises(ConsumerFailedError, match="division"):
        reader.connection.drain_events(timeout=60)
    reader.connection.release()
    successor = Reader(connect(partitions=[0]), topic)
    assert successor.nothing()
    begun.ack()
    assert successor.read().payload == {"n": 1}
    assert look.committed(topic)[0] == 1


def test_a_record_that_kafkas_client_cant_parse(
    connect: Connect, look: Look, topic: str, kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header's name that is not UTF-8, as any other client may write."""
    _publish(connect(), topic, 1)
    client = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    name = Name("xx")
    client.send(topic, value=b"{}", partition=0, headers=[(name, b"")]).get(60)
    client.close()
    _publish(connect(), topic, 1)
    letters = f"{topic}-dlq"
    kafka.create_topic(letters, 1)
    reader = Reader(connect(partitions=[0], dead_letter_topic=letters), topic)
    first = reader.read()
    first.ack()
    while len(reader.messages) < 2:
        reader.connection.drain_events(timeout=60)
    reader.messages[1].ack()
    eventually(lambda: look.committed(topic)[0] == 3)
    about = dict(look.records(letters)[0].headers)
    assert (about["dlq-reason"], about["dlq-offset"]) == (b"undecodable", b"1")
    assert about["dlq-unreadable"]


class Name(str):
    """A header's name that is not the bytes it says."""

    def encode(self, *args: Any) -> bytes:
        return b"\xff\xfe"
