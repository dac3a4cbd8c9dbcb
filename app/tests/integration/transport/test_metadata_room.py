"""Much that is done above a message that hangs: what a commit's metadata hold, and when they are full."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition

from kombu_kafka.consuming import commit_metadata
from scheduler.local_broker import LocalKafka
from scheduler.worker_metrics import render
from tests.eventually import eventually

from .conftest import Connect, Look
from .worker import Worker

Told = Callable[[str], tuple[str, set[int]]]


@pytest.fixture
def told(kafka: LocalKafka) -> Told:
    """Reads the metadata of the group's commit of partition 0, and which offsets they say are done."""

    def read(topic: str) -> tuple[str, set[int]]:
        client = KafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=topic)
        try:
            found = client.committed(TopicPartition(topic, 0), metadata=True)
        finally:
            client.close()
        text = (found or OffsetAndMetadata(0, "", -1)).metadata
        said = commit_metadata.decode(text)
        return text, {offset for done in said.done for offset in done} if said else set()

    return read


def _publish(kafka: LocalKafka, topic: str, count: int) -> None:
    """Queue messages as another language's producer does: ten times as fast."""
    producer = Producer(
        {"bootstrap.servers": ",".join(kafka.bootstrap), "enable.idempotence": True}
    )
    for number in range(count):
        producer.produce(topic, str(number).encode(), partition=0)
        if number % 10_000 == 0:
            producer.flush()
    assert producer.flush(60) == 0


class Picky(Worker):
    """Acknowledges at once what is `done`, and keeps the rest."""

    def __init__(self, connect: Connect, topic: str, done: Callable[[int], bool]) -> None:
        self.done = done
        self.came: set[int] = set()
        super().__init__(connect, topic)

    def _take(self, message: Any) -> None:
        offset = message.delivery_info["offset"]
        assert offset not in self.came, "twice"
        self.came.add(offset)
        if self.done(offset):
            message.ack()
        else:
            self.messages[offset] = message

    def work(self, until: Callable[[], bool]) -> None:
        """Take what comes until nothing more does and `until` is true."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            try:
                self.connection.drain_events(timeout=0.2)
            except TimeoutError:
                if until():
                    return
        pytest.fail(f"not so after 240 seconds: {len(self.came)} came")


def _metric(worker: Worker, name: str, **labels: str) -> float:
    """Read one of the metrics that a worker with this connection serves."""
    consumer = SimpleNamespace(connection=worker.connection)
    text = b"".join(render(SimpleNamespace(consumer=consumer, pool=None))).decode()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    (line,) = (
        line
        for line in text.splitlines()
        if line.startswith(f"{name}{{") and all(label in line for label in wanted)
    )
    return float(line.rpartition(" ")[2])


@pytest.mark.slow
def test_a_hundred_thousand_done_behind_one_that_hangs_stop_nothing(
    kafka: LocalKafka, connect: Connect, told: Told, look: Look, topic: str
) -> None:
    count = 100_001
    _publish(kafka, topic, count)
    worker = Picky(connect, topic, lambda offset: offset > 0)
    partition = TopicPartition(topic, 0)

    def flowed() -> bool:
        now = worker.inbox.statistics().get(partition)
        return now is not None and (now.in_flight, now.tracked, now.position, now.paused_by) == (
            1,
            1,
            count,
            "",
        )

    worker.work(flowed)
    assert worker.came == set(range(count))
    eventually(lambda: told(topic)[1] == set(range(1, count)))
    assert len(told(topic)[0]) < 100
    worker.ack(0)
    eventually(lambda: look.committed(topic, topic)[0] == count)


def test_fetching_pauses_before_the_metadata_are_full_and_goes_on(
    kafka: LocalKafka,
    connect: Connect,
    told: Told,
    look: Look,
    topic: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every second message hangs: nothing needs more room. All is told to Kafka, and survives a host."""
    caplog.set_level(logging.INFO, "kombu_kafka")
    count = 22_000
    _publish(kafka, topic, count)
    partition = TopicPartition(topic, 0)

    def paused(worker: Worker) -> bool:
        found = worker.inbox.statistics().get(partition)
        return found is not None and found.paused_by == "metadata"

    worker = Picky(connect, topic, lambda offset: offset % 2 == 1)
    worker.work(lambda: paused(worker))
    assert worker.came == set(range(len(worker.came)))
    assert len(worker.came) < count
    assert f"Fetching of {topic}-0 pauses: what is done above offset 0" in caplog.text
    labels = {"topic": topic, "partition": "0"}
    pause = {**labels, "reason": "metadata"}
    assert _metric(worker, "kombu_kafka_fetch_paused", **pause) == 1
    assert 0.75 <= _metric(worker, "kombu_kafka_metadata_fill_ratio", **labels) <= 1
    done = worker.came - worker.messages.keys()
    eventually(lambda: told(topic)[1] == done)
    assert len(told(topic)[0]) <= commit_metadata.LIMIT
    worker.die()

    again = Picky(connect, topic, lambda _: False)
    again.work(lambda: paused(again))
    assert not again.came & done, "done, and again"
    again.ack(*again.messages)
    again.done = lambda _: True
    again.work(lambda: look.committed(topic, topic)[0] == count)
    assert again.came == set(range(count)) - done
    assert f"Fetching of {topic}-0 goes on." in caplog.text
    assert _metric(again, "kombu_kafka_fetch_paused", **pause) == 0
