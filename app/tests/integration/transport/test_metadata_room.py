"""Much that is done above a message that hangs: what a commit's metadata hold, and when they are full."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
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
        client = KafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id="celery-group")
        try:
            found = client.committed(TopicPartition(topic, 0), metadata=True)
        finally:
            client.close()
        text = (found or OffsetAndMetadata(0, "", -1)).metadata
        said = commit_metadata.decode(text)
        return text, {offset for done in said.done for offset in done} if said else set()

    return read


def _publish(connect: Connect, topic: str, count: int) -> None:
    connection = connect()
    with connection.channel() as channel, connection.Producer(channel).batch() as producer:
        for number in range(count):
            producer.publish({"n": number}, routing_key=topic, partition=0)


def _work(worker: Worker, until: Callable[[], bool], done: Callable[[int], bool]) -> set[int]:
    """Take what comes, acknowledge what is to be done, keep the rest; return what came."""
    came: set[int] = set()

    def step() -> bool:
        try:
            worker.connection.drain_events(timeout=0.1)
        except TimeoutError:
            return until()
        for offset in [offset for offset in worker.messages if offset not in came]:
            came.add(offset)
            if done(offset):
                worker.messages.pop(offset).ack()
        return False

    eventually(step)
    return came


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


def test_a_hundred_thousand_done_behind_one_that_hangs_stop_nothing(
    connect: Connect, told: Told, look: Look, topic: str
) -> None:
    count = 100_001
    _publish(connect, topic, count)
    worker = Worker(connect, topic)
    came: set[int] = set()
    partition = TopicPartition(topic, 0)

    def flowed() -> bool:
        now = worker.inbox.statistics()[partition]  # why it pauses is looked at between two polls
        return (now.in_flight, now.tracked, now.position, now.paused_by) == (1, 1, count, "")

    came = _work(worker, flowed, lambda offset: offset > 0)
    assert came == set(range(count))
    eventually(lambda: told(topic)[1] == set(range(1, count)))
    assert len(told(topic)[0]) < 100
    worker.ack(0)
    eventually(lambda: look.committed(topic)[0] == count)


def test_fetching_pauses_before_the_metadata_are_full_and_goes_on(
    connect: Connect, told: Told, look: Look, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every second message hangs: nothing needs more room. All is told to Kafka, and survives a host."""
    count = 22_000
    _publish(connect, topic, count)
    partition = TopicPartition(topic, 0)

    def paused(worker: Worker) -> bool:
        found = worker.inbox.statistics().get(partition)
        return found is not None and found.paused_by == "metadata"

    worker = Worker(connect, topic)
    came = _work(worker, lambda: paused(worker), lambda offset: offset % 2 == 1)
    assert came == set(range(len(came)))
    assert len(came) < count
    assert f"Fetching of {topic}-0 pauses: what is done above offset 0" in caplog.text
    labels = {"topic": topic, "partition": "0"}
    assert _metric(worker, "kombu_kafka_fetch_paused", reason="metadata", **labels) == 1
    assert 0.75 <= _metric(worker, "kombu_kafka_metadata_fill_ratio", **labels) <= 1
    done = {offset for offset in came if offset % 2 == 1}
    eventually(lambda: told(topic)[1] == done)
    assert len(told(topic)[0]) <= commit_metadata.LIMIT
    worker.die()

    again = Worker(connect, topic)
    held = _work(again, lambda: paused(again), lambda _: False)
    assert held >= came - done, "lost"
    assert not held & done, "done, and again"
    again.ack(*held)
    for offset in held:
        del again.messages[offset]
    assert eventually(
        lambda: _metric(again, "kombu_kafka_fetch_paused", reason="metadata", **labels) == 0
    )
    assert f"Fetching of {topic}-0 goes on." in caplog.text
    rest = _work(again, lambda: look.committed(topic)[0] == count, lambda _: True)
    assert rest == set(range(count)) - done - held
