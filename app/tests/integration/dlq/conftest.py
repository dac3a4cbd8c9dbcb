"""A dead letter topic of its own for a test, with letters as the transport writes them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kafka import KafkaConsumer, KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from kombu_kafka.options import Options
from kombu_kafka.publishing import dead_letters
from scheduler.cli import main
from scheduler.dlq.index import Index
from scheduler.dlq.reader import Reader
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually


@dataclass
class Letters:
    """Topics, and a command line that looks at them."""

    kafka: LocalKafka
    topic: str
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dead_letter_topic = f"{self.topic}-dlq"
        self.history_topic = f"{self.dead_letter_topic}_history"
        self.options = Options.of(
            self.kafka.url(self.topic), {"dead_letter_topic": self.dead_letter_topic}
        )
        self.environ |= {
            "CELERY_BROKER_URL": self.kafka.url(self.topic),
            "CELERY_DEAD_LETTER_TOPIC": self.dead_letter_topic,
            "CELERY_GROUP_ID": self.topic,
            "COLUMNS": "160",
        }

    def write(
        self, count: int = 1, *, task: str = "shop.charge", reason: str = "exception",
        value: bytes | None = None, key: bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        failed_at: float | None = None, partition: int = 0, **details: str,
    ) -> None:  # fmt: skip
        """Write letters, each of a task with an id of its own."""
        client = KafkaProducer(
            bootstrap_servers=self.kafka.bootstrap, linger_ms=20, max_request_size=8 << 20,
            batch_size=262_144,
        )  # fmt: skip
        told = {"exception": "ValueError", "message": "no such order", **details}
        for number in range(count):
            own = headers
            if own is None:
                own = [("task", task.encode()), ("id", uuid.uuid4().hex.encode()),
                       ("content-type", b"application/json"), ("content-encoding", b"utf-8")]  # fmt: skip
            body = b'[["42"], {"amount": 100}, {}]' if value is None else value
            record = ConsumerRecord(
                self.topic, partition, -1, number, 1_700_000_000_000 + number, 0, key, body,
                list(own), None, -1, -1, -1,
            )  # fmt: skip
            letter = dead_letters.Letter(record, reason, told)
            made = dead_letters.letter_headers(letter, failed_at or time.time(), "worker-0")
            client.send(self.dead_letter_topic, value=body, key=key, headers=made)
        client.flush()
        client.close()

    def run(self, *args: str, code: int = 0, stdin: str | None = None) -> Result:
        """Run `scheduler dlq …` in this process; it must end with `code`."""
        result = CliRunner().invoke(main, ["dlq", *args], env=self.environ, input=stdin)
        assert result.exit_code == code, (result.output, result.exception)
        return result

    def json(self, *args: str, code: int = 0) -> list[Any]:
        """Run a command with --json; return its lines."""
        return [
            json.loads(line) for line in self.run(*args, "--json", code=code).stdout.splitlines()
        ]

    def read(self, topic: str) -> list[Any]:
        """Every committed record of a topic, once all its transactions are over.

        Brokers confirm a transaction before they mark its end in the partitions it wrote to.
        """
        with Reader(self.options) as reader, closing(
            KafkaConsumer(bootstrap_servers=self.kafka.bootstrap)
        ) as look:  # fmt: skip

            def settled() -> Any:
                ends = look.end_offsets(reader.partitions(topic))
                bounds = reader.bounds(topic)
                return all(bounds[one][1] >= end for one, end in ends.items()) and [bounds]

            [bounds] = eventually(settled)
            return list(reader.read(bounds))

    def index(self, reader: Reader) -> Index:
        index = Index(self.options, reader)
        index.refresh()
        return index

    def kafka_topics(self) -> set[str]:
        """Names of all topics."""
        client = self.kafka.admin()
        try:
            return set(client.list_topics())
        finally:
            client.close()

    def committed(self) -> set[int | None]:
        """What the workers' group has committed of the topic."""
        client = KafkaConsumer(bootstrap_servers=self.kafka.bootstrap, group_id=self.topic)
        try:
            return {client.committed(TopicPartition(self.topic, number)) for number in range(4)}
        finally:
            client.close(autocommit=False)


@pytest.fixture
def make_letters(kafka: LocalKafka) -> Callable[[], Letters]:
    """Make topics and what looks at them."""

    def make() -> Letters:
        name = f"test-{uuid.uuid4().hex[:12]}"
        kafka.create_topic(name, 4)
        made = Letters(kafka, name)
        kafka.create_topic(made.dead_letter_topic, 1, {"max.message.bytes": str(4 << 20)})
        return made

    return make


@pytest.fixture
def letters(make_letters: Callable[[], Letters]) -> Letters:
    return make_letters()
