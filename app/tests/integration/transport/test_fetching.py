"""Polling several partitions that are paused and resumed."""

from __future__ import annotations

from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from kombu_kafka.clients.fetching import poll
from scheduler.local_broker import LocalKafka


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

        while not any(read.values()):
            take()
        first, second = sorted(both, key=lambda partition: -read[partition])
        client.pause(first)
        while read[second] < 50:
            take()
        client.resume(first)
        for _ in range(20):
            take()
        assert read == {first: 50, second: 50}
    finally:
        client.close()
