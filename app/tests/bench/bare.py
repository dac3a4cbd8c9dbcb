"""What the bare clients can do, as a bound: `python -m tests.bench.bare CLIENT HOW '{"bootstrap": …}'`; prints JSON.

A record is as large as this transport's of the same task.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from statistics import median, quantiles
from typing import Any, Protocol

from confluent_kafka import Consumer, Producer
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

__all__ = ["CLIENTS"]

VALUE = b'[[12345],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
HEADERS = [
    ("content-type", b"application/json"), ("content-encoding", b"utf-8"), ("lang", b"py"),
    ("task", b"bench.noop"), ("id", b"0d0e7bd4-e6cd-4a8a-9c9c-2f2e4e3c9d4f"), ("retries", b"0"),
    ("timelimit", b"[null,null]"), ("root_id", b"0d0e7bd4-e6cd-4a8a-9c9c-2f2e4e3c9d4f"),
    ("argsrepr", b"(12345,)"), ("kwargsrepr", b"{}"), ("origin", b"gen12345@host"),
    ("ignore_result", b"true"), ("replaced_task_nesting", b"0"), ("stamps", b"{}"),
    ("amqp-correlation_id", b"0d0e7bd4-e6cd-4a8a-9c9c-2f2e4e3c9d4f"),
    ("amqp-delivery_mode", b"2"), ("amqp-exchange", b""), ("amqp-routing_key", b"bench"),
    ("json-headers", b"timelimit,retries,ignore_result,replaced_task_nesting,stamps"),
]  # fmt: skip


class Client(Protocol):
    """What is measured of a client."""

    def __init__(self, bootstrap: str, topic: str) -> None: ...

    def one(self) -> None:
        """Publish a record and wait for its confirmation."""

    def many(self, count: int) -> None:
        """Publish records and wait for the confirmations of all."""

    def read(self, count: int) -> float:
        """Read so many records from partition 0; return the seconds since the first came."""

    def follow(self, count: int) -> Iterator[float]:
        """Yield, for each of the first so many records of partition 0, when it came."""


class KafkaPython:
    """kafka-python."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap, acks="all", enable_idempotence=True
        )

    def one(self) -> None:
        self._send().get(timeout=30)

    def many(self, count: int) -> None:
        for future in [self._send() for _ in range(count)]:
            future.get(timeout=30)

    def _send(self) -> Any:
        return self._producer.send(self._topic, VALUE, headers=HEADERS, partition=0)

    def follow(self, count: int) -> Iterator[float]:
        consumer = KafkaConsumer(bootstrap_servers=self._bootstrap)
        consumer.assign([TopicPartition(self._topic, 0)])
        consumer.seek_to_beginning()
        while count:
            for records in consumer.poll(timeout_ms=1000).values():
                yield from [time.monotonic()] * len(records)
                count -= len(records)

    def read(self, count: int) -> float:
        consumer = KafkaConsumer(bootstrap_servers=self._bootstrap)
        consumer.assign([TopicPartition(self._topic, 0)])
        consumer.seek_to_beginning()
        seen, began = 0, 0.0
        while seen < count:
            for records in consumer.poll(timeout_ms=1000).values():
                began = began or time.monotonic()
                seen += sum(record.value is not None for record in records)
        return time.monotonic() - began


class LibRdKafka:
    """confluent-kafka."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        settings = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 0}
        self._producer = Producer({**settings, "queue.buffering.max.messages": 1_000_000})

    def one(self) -> None:
        self._send()
        self._producer.flush(30)

    def many(self, count: int) -> None:
        for _ in range(count):
            self._send()
            self._producer.poll(0)
        self._producer.flush(60)

    def _send(self) -> None:
        self._producer.produce(self._topic, VALUE, headers=HEADERS, partition=0)

    def follow(self, count: int) -> Iterator[float]:
        consumer = self._consumer()
        while count:
            records = consumer.consume(1, 1.0)
            yield from [time.monotonic()] * len(records)
            count -= len(records)

    def read(self, count: int) -> float:
        consumer = self._consumer()
        seen, began = 0, 0.0
        while seen < count:
            records = consumer.consume(500, 1.0)
            if records:
                began = began or time.monotonic()
            seen += sum(record.value() is not None for record in records)
        return time.monotonic() - began

    def _consumer(self) -> Consumer:
        from confluent_kafka import TopicPartition

        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "bare"})
        consumer.assign([TopicPartition(self._topic, 0, 0)])
        return consumer


CLIENTS: dict[str, type[Client]] = {"kafka-python": KafkaPython, "confluent-kafka": LibRdKafka}


def spaced(it: Client, count: int, gap: float) -> dict[str, float]:
    """From before a record is published to when a thread of the same process has it, in milliseconds."""
    came: list[float] = []
    reader = threading.Thread(target=lambda: came.extend(it.follow(count)))
    reader.start()
    left = []
    for number in range(count):
        time.sleep(gap * (0.5 + (number * 0.618) % 1.0))
        left.append(time.monotonic())
        it.one()
    reader.join(60)
    took = [(at - since) * 1000 for since, at in zip(left, came, strict=True)][count // 10 :]
    return {"p50": median(took), "p99": quantiles(took, n=100, method="inclusive")[98]}


def main(
    client: str, how: str, bootstrap: str, topic: str, count: int, gap: float = 0.0
) -> dict[str, float]:
    """Measure one figure."""
    it = CLIENTS[client](bootstrap, topic)
    if how == "read":
        return {"rate": count / it.read(count)}
    if how == "spaced":
        return spaced(it, count, gap)
    for _ in range(100):
        it.one()
    began, cpu = time.monotonic(), time.process_time()
    if how == "bulk":
        it.many(count)
    else:
        for _ in range(count):
            it.one()
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    return {"rate": count / took, "cpu": cpu / count * 1e6}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))), flush=True)
    os._exit(0)
