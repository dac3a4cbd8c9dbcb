"""What every consumer of ours keeps: it makes no topic, reads on where it paused, and to an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaTimeoutError
from kafka.structs import TopicPartition

from kombu_kafka import consumer
from kombu_kafka.clients import fetching
from kombu_kafka.clients.consumers import new_consumer, read
from kombu_kafka.clients.fetching import poll
from kombu_kafka.options import Options
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually


def test_a_partition_that_was_paused_half_read_is_read_on(kafka: LocalKafka, topic: str) -> None:
    both = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for partition in both * 50:
        producer.send(topic, b"", partition=partition.partition)
    producer.close()
    client = KafkaConsumer(
        bootstrap_servers=kafka.bootstrap, group_id=None, auto_offset_reset="earliest"
    )
    try:
        client.assign(both)
        read = dict.fromkeys(both, 0)

        def take() -> None:
            for partition, records in poll(client, timeout_ms=500, max_records=10).items():
                read[partition] += len(records)

        def took(done: Callable[[], bool]) -> None:
            def look() -> bool:
                take()
                return done()

            eventually(look)

        took(lambda: any(read.values()))
        first, second = sorted(both, key=lambda partition: -read[partition])
        client.pause(first)
        took(lambda: read[second] == 50)
        client.resume(first)
        took(lambda: read[first] == 50)
        assert read[second] == 50
    finally:
        client.close()


def test_asking_for_a_topic_does_not_make_it(
    kafka: LocalKafka, topic_name: str, admin: KafkaAdminClient
) -> None:
    client = new_consumer(Options.of(kafka.url()))
    try:
        client.assign([TopicPartition(topic_name, 0)])
        assert not client.poll(timeout_ms=1000)
        assert not client.partitions_for_topic(topic_name)
        assert topic_name not in admin.list_topics()
    finally:
        client.close()


def test_partitions_are_read_to_their_ends_and_then_on(kafka: LocalKafka, topic: str) -> None:
    parts = [TopicPartition(topic, number) for number in range(3)]
    first, second, empty = parts
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for number in range(30):
        producer.send(topic, str(number).encode(), partition=0)
        producer.send(topic, str(number).encode(), partition=1)
    producer.flush()
    client = new_consumer(Options.of(kafka.url()), max_poll_records=7)
    try:
        bounds = {first: (0, 30), second: (5, 12), empty: (0, 0)}
        read_of: dict[int, list[int]] = {0: [], 1: []}
        for records in read(client, bounds, patience=30):
            for record in records:
                read_of[record.partition].append(record.offset)
        assert read_of == {0: [*range(30)], 1: [*range(5, 12)]}
        assert not client.paused()
        assert [client.position(one) for one in parts] == [30, 12, 0]
        rest: list[int] = []
        while len(rest) < 18:
            rest += [r.offset for r in poll(client, timeout_ms=500).get(second, ())]
        assert rest == [*range(12, 30)]
        with pytest.raises(KafkaTimeoutError, match=f"no record of {topic}-2 came for 1 seconds"):
            list(read(client, {empty: (0, 1)}, patience=1))
    finally:
        client.close()
        producer.close()


def test_a_consumer_with_nothing_to_do_waits_and_does_not_poll(
    kafka: LocalKafka, topic: str, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It polls when Kafka answers: once for each request, and not ten times a second."""
    waits: list[int] = []
    polls: list[Any] = []

    def count_waits(client: Any, wake: Any, seconds: float) -> None:
        if seconds > consumer.POLL_MS / 1000:
            waits.append(len(polls))
        fetching.wait(client, wake, seconds)

    def count_polls(client: Any, **arguments: Any) -> Any:
        found = fetching.poll(client, **arguments)
        polls.append(found)
        return found

    monkeypatch.setattr(consumer, "wait", count_waits)
    monkeypatch.setattr(consumer, "poll", count_polls)
    options = Options.of(kafka.url(), {"group_id": topic, "partitions": [0], "ordering": "none"})
    worker = consumer.Consumer(options)
    try:
        worker.consume(topic)
        eventually(lambda: len(waits) >= 5)
        # Between two waits there is one poll.
        last = waits[-5:]
        assert [count - last[0] for count in last] == [0, 1, 2, 3, 4]
        publish(topic, range(1), partition=0)
        delivery = eventually(lambda: worker.inbox.take({topic}))
        count = len(waits)
        # While something is in flight its offset may have to be committed any moment.
        eventually(lambda: len(polls) >= 3 + count)
        worker.inbox.settle(delivery.tag)
        eventually(lambda: len(waits) >= count + 3)
        assert worker.inbox.quiet()
    finally:
        worker.join()
