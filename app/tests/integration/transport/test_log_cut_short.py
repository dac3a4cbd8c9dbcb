"""A log that loses its end, as when a broker that had not all of it becomes the leader."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer
from kafka.structs import TopicPartition
from kombu import Connection

from kombu_kafka import topics
from kombu_kafka.consuming import commit_metadata
from kombu_kafka.options import Options
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .conftest import Connect
from .worker import Worker


@pytest.fixture
def fragile() -> Iterator[LocalKafka]:
    """A broker of its own, to be killed."""
    with LocalKafka() as cluster:
        yield cluster


def _cut(kafka: LocalKafka, topic: str, keep: int) -> None:
    """Leave a partition's first records, each a batch of its own, while the broker is down."""
    (path,) = (kafka.directory / "data1" / f"{topic}-0").glob("*.log")
    data, at = path.read_bytes(), 0
    while struct.unpack_from(">q", data, at)[0] < keep:
        at += 12 + struct.unpack_from(">i", data, at + 8)[0]
    with path.open("r+b") as file:
        file.truncate(at)


@pytest.mark.slow
def test_reading_goes_on_where_the_log_was_cut_and_what_is_new_there_runs(
    connect: Connect, fragile: LocalKafka, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Under live workers, bound and of a group, and behind the back of one that is down.

    Ten messages, done but for one; the log is cut at 6 and grows past where it ended, so that no
    offset is out of range.
    """
    names = {"bound": [0], "shared": None, "down": [0], "shorter": [0]}

    def made(name: str) -> Worker:
        options: dict[str, Any] = {"partitions": names[name], "group_id": name}
        state = tmp_path / name
        return Worker(
            connect,
            name,
            url=fragile.url(),
            state_directory=str(state),
            **options,
        )

    def publish(name: str, count: int, client: str) -> None:
        options = {"connect_timeout": 10, "client_id": client}
        with Connection(fragile.url(), transport_options=options) as connection:
            producer = connection.Producer()
            for number in range(count):
                producer.publish({"n": number}, routing_key=name, partition=0)

    def committed(name: str) -> tuple[int, set[int]]:
        client = KafkaConsumer(bootstrap_servers=fragile.bootstrap, group_id=name)
        try:
            found = client.committed(TopicPartition(name, 0), metadata=True)
        finally:
            client.close()
        said = commit_metadata.decode(found.metadata if found else "")
        done = {offset for run in said.done for offset in run} if said else set()
        return (found.offset if found else -1), done

    def told(name: str, what: tuple[int, set[int]]) -> None:
        eventually(lambda: committed(name) == what)

    def noticed(worker: Worker) -> None:
        eventually(lambda: worker.connection.transport.consumer._ownership._anew)

    workers = {}
    for name in names:
        fragile.create_topic(name, 1)
        publish(name, 10, "before")
        worker = workers[name] = made(name)
        worker.read(set(range(10)))
        hangs = {3} if name != "shorter" else set[int]()
        worker.ack(*set(range(10)) - hangs)
        what = (3, set(range(4, 10))) if hangs else (10, set[int]())
        told(name, what)
    for name in ("down", "shorter"):
        workers[name].die()

    (node,) = fragile.nodes
    node.kill()
    for name in names:
        _cut(fragile, name, 6)
    node.start()
    fragile.wait()
    for name in names:
        publish(name, 12, "after")

    for name in ("bound", "shared"):
        worker = workers[name]
        # What runs may end, and is done: of a partition there are never two at once.
        noticed(worker)
        worker.ack(3)
        worker.messages.clear()
        worker.read(set(range(6, 18)))
        worker.ack(*range(6, 18))
    for name in ("down", "shorter"):
        left = {3, *range(6, 18)} if name == "down" else set(range(6, 18))
        worker = made(name)
        worker.read(left)
        worker.ack(*left)
    for name in names:
        told(name, (18, set()))
        assert f"The log of {name}-0 was cut short at offset 6" in caplog.text
        options = Options.of(fragile.url(), {"group_id": name})
        assert topics.lag(options, name) == {0: (18, 18)}
