"""What a new process makes of offsets, metadata and journals that others left: on a real broker."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition

from kombu_kafka.clients import lookup
from kombu_kafka.consuming import commit_metadata, progress
from kombu_kafka.ownership import absent
from kombu_kafka.publishing import producer
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .conftest import Connect, Look
from .worker import Worker


@pytest.fixture
def publish(connect: Connect) -> Callable[[str, int], None]:
    def many(topic: str, count: int) -> None:
        connection = connect()
        producer = connection.Producer()
        for number in range(count):
            producer.publish({"n": number}, routing_key=topic, partition=0)

    return many


@pytest.fixture
def word(kafka: LocalKafka) -> Callable[..., OffsetAndMetadata | None]:
    """Reads, or with an offset writes, the commit of partition 0 of the group that bears the topic's name."""

    def speak(topic: str, offset: int | None = None, text: str = "") -> OffsetAndMetadata | None:
        client = KafkaConsumer(
            bootstrap_servers=kafka.bootstrap, group_id=topic, enable_auto_commit=False
        )
        try:
            partition = TopicPartition(topic, 0)
            client.assign([partition])
            if offset is not None:
                client.commit({partition: OffsetAndMetadata(offset, text, -1)})
            found: OffsetAndMetadata | None = client.committed(partition, metadata=True)
            return found
        finally:
            client.close()

    return speak


def _scattered(connect: Connect, publish: Any, word: Any, topic: str, state: str | None) -> Worker:
    """Ten messages, of which 2, 3 and 7 are done and Kafka knows it."""
    publish(topic, 10)
    worker = Worker(connect, topic, state_directory=state)
    worker.read(set(range(10)))
    worker.ack(2, 3, 7)

    def told() -> bool:
        said = commit_metadata.decode((word(topic) or OffsetAndMetadata(0, "", -1)).metadata)
        return said is not None and said.done == (range(2, 4), range(7, 8))

    eventually(told)
    return worker


def _delete(kafka: LocalKafka, topic: str) -> None:
    producer.forget([topic])  # who asks for a topic that is gone brings it back
    admin = kafka.admin()
    admin.delete_topics([topic])
    eventually(lambda: topic not in admin.list_topics())
    admin.close()


REST = {0, 1, 4, 5, 6, 8, 9}


def test_another_host_skips_what_kafka_knows_as_done(
    connect: Connect, publish: Any, word: Any, look: Look, topic: str, tmp_path: Path
) -> None:
    worker = _scattered(connect, publish, word, topic, str(tmp_path))
    said = commit_metadata.decode(word(topic).metadata)
    assert said is not None
    assert said.owner == "kombu-kafka"
    assert look.committed(topic, topic)[0] == 0
    worker.die()
    shutil.rmtree(tmp_path)
    again = Worker(connect, topic)
    again.read(REST)
    again.ack(*REST)
    eventually(lambda: look.committed(topic, topic)[0] == 10)


def test_the_same_host_skips_what_its_journal_knows(
    connect: Connect, publish: Any, topic: str, tmp_path: Path
) -> None:
    """Nothing was ever committed; a damaged line costs that line."""
    publish(topic, 10)
    worker = Worker(connect, topic, state_directory=str(tmp_path), commit_interval=3600)
    worker.read(set(range(10)))
    worker.ack(2, 3, 7)
    worker.die()
    (journal,) = tmp_path.glob("*.journal")
    journal.write_bytes(journal.read_bytes().replace(b"\n3 done", b"\n4 done"))
    Worker(connect, topic, state_directory=str(tmp_path)).read(REST | {3})


@pytest.mark.parametrize("text", ["somebody's", "v1;00000000;o=;w=0;i=;j=;a=;r="])
def test_metadata_that_is_not_ours_or_damaged_is_ignored_with_a_warning(
    connect: Connect,
    publish: Any,
    word: Any,
    topic: str,
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(topic, 5)
    word(topic, 1, text)
    Worker(connect, topic).read({1, 2, 3, 4})
    assert "is damaged or somebody else's" in caplog.text


@pytest.mark.parametrize(("to", "runs"), [(0, set(range(10))), (5, set(range(5, 10)))])
def test_offsets_moved_by_a_person_hold_against_journal_and_metadata(
    connect: Connect,
    publish: Any,
    word: Any,
    topic: str,
    tmp_path: Path,
    to: int,
    runs: set[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """To where it was: what was done above it is to run again. Forward: the rest is passed over."""
    _scattered(connect, publish, word, topic, str(tmp_path)).die()
    word(topic, to)  # as kafka-consumer-groups.sh --reset-offsets does: without metadata
    Worker(connect, topic, state_directory=str(tmp_path)).read(runs)
    assert "somebody else, who wants records to run again" in caplog.text


def test_where_kafka_forgot_the_group_the_journal_goes_on(
    connect: Connect,
    publish: Any,
    look: Look,
    topic: str,
    kafka: LocalKafka,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A group without workers loses its offsets after offsets.retention.minutes."""
    publish(topic, 10)
    worker = Worker(connect, topic, state_directory=str(tmp_path))
    worker.read(set(range(10)))
    worker.ack(0, 1, 2)
    eventually(lambda: look.committed(topic, topic)[0] == 3)
    worker.die()
    admin = kafka.admin()
    partition = TopicPartition(topic, 0)
    eventually(lambda: not admin.describe_groups([topic])[topic]["members"])
    admin.delete_group_offsets(topic, [partition])
    admin.close()
    assert look.committed(topic, topic)[0] is None
    again = Worker(connect, topic, state_directory=str(tmp_path))
    again.read(set(range(3, 10)))
    assert "Going on from offset 3" in caplog.text
    assert again.connection.transport.consumer.positions() == {(topic, 0): 3}
    eventually(lambda: look.committed(topic, topic)[0] == 3)


def test_what_retention_deleted_is_counted_and_what_is_left_begins(
    connect: Connect,
    publish: Any,
    word: Any,
    topic: str,
    kafka: LocalKafka,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _scattered(connect, publish, word, topic, None).die()
    admin = kafka.admin()
    admin.delete_records({TopicPartition(topic, 0): 6})
    admin.close()
    Worker(connect, topic).read({6, 8, 9})
    # Of 0 to 5, 2 and 3 were done.
    assert f"Retention deleted 4 records of {topic}-0" in caplog.text


def test_a_topic_made_anew_begins_at_its_first_record(
    connect: Connect,
    publish: Any,
    word: Any,
    topic: str,
    kafka: LocalKafka,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where it has grown past the offset that was committed of its predecessor."""
    worker = _scattered(connect, publish, word, topic, None)
    worker.ack(*REST)
    said = eventually(lambda: word(topic) if word(topic).offset == 10 else None)
    worker.die()
    _delete(kafka, topic)
    kafka.create_topic(topic, 1)
    publish(topic, 12)
    word(topic, 10, said.metadata)  # committed once more by a worker that knew nothing of it
    Worker(connect, topic).read(set(range(12)))
    assert "a topic that was deleted and made anew since" in caplog.text


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
@pytest.mark.slow
def test_random_deaths_lose_nothing_and_repeat_nothing_that_was_acknowledged(
    connect: Connect, look: Look, topic: str, tmp_path: Path, ordering: str
) -> None:
    """A short run of the model's schedules (test_progress_model) on a real broker.

    Acknowledgements, retries, rejections, returns; deaths and orderly ends.
    """
    # Where CI decides, not by chance: everybody else's runs explore (as hypothesis does, in conftest.py).
    seed = 0 if "CI" in os.environ else random.randrange(10**6)
    logging.getLogger(__name__).warning("seed %d", seed)
    dice = random.Random(seed)
    producer = connect().Producer()
    keys = [dice.choice([None, "a", "b", "c"]) for _ in range(120)]
    for number, key in enumerate(keys):
        producer.publish({"n": number}, routing_key=topic, partition=0, partition_key=key)
    acknowledged: list[int] = []
    for life in range(8):
        last = life == 7
        worker = Worker(connect, topic, ordering=ordering, state_directory=str(tmp_path))
        steps = 10**6 if last else dice.randint(5, 60)
        for _ in range(steps):
            if len(acknowledged) == len(keys):
                break
            try:
                worker.connection.drain_events(timeout=0.3 if worker.messages else 60)
            except TimeoutError:
                assert worker.messages
            assert not worker.messages.keys() & set(acknowledged)
            running = [keys[offset] for offset in worker.messages]
            if ordering == "partition":
                assert list(worker.messages) in ([], [len(acknowledged)])
            elif ordering == "key":
                named = [key for key in running if key is not None]
                assert len(named) == len(set(named))
            offset = dice.choice(list(worker.messages))
            what = 0.0 if last else dice.random()
            if what > 0.8:
                continue
            message = worker.messages.pop(offset)
            if what > 0.75:
                message.requeue()
                continue
            if what > 0.65:  # a retry: queued once more at the end, then acknowledged
                producer.publish(
                    {"n": offset}, routing_key=topic, partition=0, partition_key=keys[offset]
                )
                keys.append(keys[offset])
            if 0.55 < what <= 0.65:  # it counts as done once its letter is confirmed
                worker.reject(message)
            else:
                message.ack()
            acknowledged.append(offset)
        if not last:
            dice.choice([worker.die, worker.end])()
    assert sorted(acknowledged) == list(range(len(keys)))
    if ordering != "none":
        for key in {"a", "b", "c"}:
            of_key = [offset for offset in acknowledged if keys[offset] == key]
            assert of_key == sorted(of_key), seed
    eventually(lambda: look.committed(topic, topic)[0] == len(keys))


def test_retention_under_a_live_worker_is_counted_and_what_is_left_goes_on(
    connect: Connect,
    publish: Any,
    look: Look,
    topic: str,
    kafka: LocalKafka,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five messages are unfinished, so that nothing is fetched, and three that wait are deleted."""
    monkeypatch.setattr(progress, "MAX_OUTSTANDING", 5)
    publish(topic, 5)
    worker = Worker(connect, topic)
    worker.read({0, 1, 2, 3, 4})
    partition = TopicPartition(topic, 0)
    fetcher = worker.connection.transport.consumer._ownership.client._fetcher
    eventually(lambda: worker.inbox.statistics()[partition].paused_by == "outstanding")
    eventually(lambda: not fetcher.in_flight_fetches())
    publish(topic, 10)
    admin = kafka.admin()
    admin.delete_records({partition: 8})
    admin.close()
    worker.ack(0, 1, 2, 3)
    worker.read({0, 1, 2, 3, 4, *range(8, 12)})  # five at most, the one that hangs included
    assert f"Retention deleted 3 records of {topic}-0" in caplog.text
    assert worker.inbox.statistics()[partition].lost == 3
    worker.ack(4, *range(8, 12))
    worker.read({0, 1, 2, 3, 4, *range(8, 15)})
    worker.ack(12, 13, 14)
    eventually(lambda: look.committed(topic, topic)[0] == 15)
    assert worker.inbox.statistics()[partition].lost == 3


@pytest.mark.parametrize("bound", [True, False])
def test_a_topic_made_anew_under_a_live_worker_begins_at_its_first_record(
    connect: Connect,
    publish: Any,
    look: Look,
    topic: str,
    kafka: LocalKafka,
    tmp_path: Path,
    bound: bool,
) -> None:
    """What runs of the old may end and means nothing to the new, which begins afterwards."""
    publish(topic, 10)
    worker = Worker(
        connect,
        topic,
        state_directory=str(tmp_path),
        partitions=[0] if bound else None,
        max_buffered=1,
    )
    worker.read(set(range(10)))
    worker.ack(*range(1, 8))
    eventually(lambda: look.committed(topic, topic)[0] == 0)
    _delete(kafka, topic)
    kafka.create_topic(topic, 4)
    publish(topic, 12)
    partition = TopicPartition(topic, 0)

    def noticed() -> bool:
        found = worker.inbox.statistics().get(partition)
        return found is None or partition in worker.connection.transport.consumer._ownership._anew

    eventually(noticed)
    worker.ack(0, 8, 9)
    worker.messages.clear()
    worker.read(set(range(12)))
    worker.ack(*range(12))
    eventually(lambda: look.committed(topic, topic)[0] == 12)


def test_a_topic_that_was_missed_is_read_again_once_a_member_of_a_group_knows_it(
    connect: Connect,
    publish: Any,
    topic: str,
    kafka: LocalKafka,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its metadata may tell before its next look, which then never comes."""
    publish(topic, 2)
    worker = Worker(connect, topic, state_directory=str(tmp_path), partitions=None)
    worker.read({0, 1})
    worker.ack(0, 1)
    monkeypatch.setattr(absent, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(absent, "LONGEST_PAUSE", 3600.0)
    _delete(kafka, topic)
    ownership = worker.connection.transport.consumer._ownership
    eventually(lambda: topic in ownership.absent.names)
    kafka.create_topic(topic, 4)
    worker.messages.clear()
    monkeypatch.setattr(lookup, "made", lambda topic: None)  # another process makes and publishes
    publish(topic, 3)
    worker.read({0, 1, 2})
