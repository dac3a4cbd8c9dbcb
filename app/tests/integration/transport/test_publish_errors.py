"""Publishing that can't succeed: the publisher is told, in time, what to do; and the next one is not."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ResourcePattern,
    ResourceType,
)
from kombu import Connection
from kombu.exceptions import KombuError, OperationalError

from kombu_kafka import topics
from kombu_kafka.errors import (
    BrokerUnavailableError,
    PartitionNotFoundError,
    PublishError,
)
from kombu_kafka.options import PUBLISHER_CLIENTS, Options
from kombu_kafka.publishing import producer
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually
from tests.secure_kafka import PASSWORDS

from .conftest import CONNECT_SECONDS, Connect, Look, each_client

#: Seconds in which a refusal must be told, with Celery's own policy of retries; what is not refused but goes
#: unconfirmed takes longer (`publish_timeout`).
SOON = 50
MEGABYTE = 1_000_000


@pytest.fixture
def app(kafka: LocalKafka, publisher_client: str) -> Iterator[Celery]:
    with _app(kafka.url(), publisher_client=publisher_client) as made:
        yield made


def _app(url: str, **options: Any) -> Celery:
    app = Celery("publisher", broker=url)
    app.conf.broker_transport_options = {"connect_timeout": CONNECT_SECONDS, **options}
    app.conf.task_ignore_result = True
    return app


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    producer.close_all(1)


@each_client
def test_too_large_for_the_topic_as_a_task(app: Celery, look: Look, topic: str) -> None:
    """Celery's retries don't repeat it, and the same producer goes on."""
    began = time.monotonic()
    with pytest.raises(PublishError, match=r"too large: .*max\.message\.bytes"):
        app.send_task("t", ["x" * 2 * MEGABYTE], queue=topic)
    app.send_task("t", ["small"], queue=topic)
    assert time.monotonic() - began < SOON
    assert len(look.records(topic)) == 1


@each_client
def test_too_large_for_the_client(connect: Connect, topic: str) -> None:
    with pytest.raises(PublishError, match="'max_message_bytes'"):
        connect(max_message_bytes=1000).Producer().publish("x" * 100_000, routing_key=topic)


@each_client
def test_the_topics_own_limit_decides(
    kafka: LocalKafka, connect: Connect, look: Look, topic_name: str
) -> None:
    kafka.create_topic(topic_name, 1, {"max.message.bytes": str(4 * MEGABYTE)})
    connect().Producer().publish("x" * 3 * MEGABYTE, routing_key=topic_name)
    assert len(look.records(topic_name)) == 1


@each_client
def test_one_that_is_refused_fails_alone(connect: Connect, look: Look, topic: str) -> None:
    """Others that are on their way at that moment are stored, and are told so."""
    faults: dict[int, BaseException] = {}
    publisher = connect().Producer()
    publisher.publish("first", routing_key=topic)

    def publish(number: int) -> None:
        try:
            connect().Producer().publish(str(number), routing_key=topic, partition=number % 4)
        except BaseException as exc:  # noqa: BLE001
            faults[number] = exc

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(20)]
    for thread in threads[:10]:
        thread.start()
    with pytest.raises(PublishError):
        publisher.publish("x" * 2 * MEGABYTE, routing_key=topic)
    for thread in threads[10:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(exc, BrokerUnavailableError) for exc in faults.values()), faults
    stored = Counter(record.value for record in look.records(topic))
    assert set(stored.values()) == {1}
    told = {b"first", *(str(number).encode() for number in range(20) if number not in faults)}
    assert told <= stored.keys()  # of the others that is not known


@each_client
def test_a_topic_that_nobody_makes(
    secure_broker: LocalKafka, topic_name: str, publisher_client: str
) -> None:
    with _app(secure_broker.url(), publisher_client=publisher_client) as app:
        app.connection_for_write().ensure_connection(timeout=60)
        began = time.monotonic()
        with pytest.raises(PublishError, match="does not exist, and the brokers don't create it"):
            app.send_task("t", queue=topic_name)
        assert time.monotonic() - began < SOON
        secure_broker.create_topic(topic_name)
        app.send_task("t", queue=topic_name)


@each_client
def test_a_name_that_no_topic_can_have(app: Celery) -> None:
    with pytest.raises(PublishError, match="can't be the name of a Kafka topic"):
        app.send_task("t", queue="x" * 250)


def test_a_partition_that_does_not_exist(app: Celery, topic: str) -> None:
    began = time.monotonic()
    with pytest.raises(PartitionNotFoundError, match="has no partition 99: it has 4"):
        app.send_task("t", queue=topic, partition=99)
    assert time.monotonic() - began < SOON


def _grant(kafka: LocalKafka, user: str, operation: ACLOperation, name: str) -> None:
    admin = kafka.admin()
    try:
        pattern = ResourcePattern(ResourceType.TOPIC, name)
        rule = ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, pattern)
        admin.create_acls([rule])
    finally:
        admin.close()


@each_client
def test_not_authorized(secure_broker: LocalKafka, topic_name: str, publisher_client: str) -> None:
    """Without Describe and without Write; then with both."""
    secure_broker.create_topic(topic_name)
    word = quote(PASSWORDS["producer"], safe="")
    address = f"kafka://producer:{word}@{secure_broker.addresses('CLEAR')[0]}//tasks"
    with _app(address, publisher_client=publisher_client) as app:
        began = time.monotonic()
        refused = pytest.raises(PublishError, match=r"may not write to .*: grant it the Write")
        with refused:
            app.send_task("t", queue=topic_name)
        _grant(secure_broker, "producer", ACLOperation.DESCRIBE, topic_name)
        eventually(lambda: topic_name in topics.partition_counts(Options.of(address)))
        with refused:
            app.send_task("t", queue=topic_name)
        assert time.monotonic() - began < SOON
        _grant(secure_broker, "producer", ACLOperation.WRITE, topic_name)
        _eventually_sent(app, topic_name)


def _eventually_sent(app: Celery, topic: str) -> None:
    """Rules take a moment to reach a broker."""
    deadline = time.monotonic() + SOON
    while True:
        try:
            app.send_task("t", queue=topic)
            return
        except PublishError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.slow
def test_not_enough_replicas() -> None:
    """Recoverable, so Celery repeats it; then it says so."""
    with LocalKafka(3) as kafka:
        kafka.create_topic("three", 1, {"min.insync.replicas": "3"})
        apps = [_app(kafka.url(), publisher_client=client) for client in PUBLISHER_CLIENTS]
        for app in apps:
            app.send_task("t", queue="three")
        admin = kafka.admin()
        (described,) = admin.describe_topics(["three"])
        admin.close()
        leader = described["partitions"][0]["leader_id"]
        # No leader: while one is elected, messages go unconfirmed for other reasons.
        next(node for node in kafka.nodes if node.id != leader).kill()
        for app in apps:
            began = time.monotonic()
            with pytest.raises(OperationalError, match=r"in-sync replicas .* bring the missing"):
                _send_until_refused(app)
            assert time.monotonic() - began < SOON
            app.close()


def _send_until_refused(app: Celery) -> None:
    """A dead replica is missed after some seconds; until then messages wait for it."""
    while True:
        app.send_task("t", queue="three", retry_policy={"max_retries": 1})


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[LocalKafka]:
    with LocalKafka(properties={"log.flush.interval.messages": 1}) as kafka:
        kafka.create_topic("doomed", 1)
        yield kafka


def _mount(*command: object) -> None:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(
            f"A disk that is full needs a small file system, and {command[0]} is refused "
            f"({done.stderr.strip()}): run this test as root, with CAP_SYS_ADMIN.",
            pytrace=False,
        )


@pytest.fixture
def small_disk(kafka: LocalKafka, tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes. (`kafka` says whether any broker can run.)"""
    directory = tmp_path / "disk"
    directory.mkdir()
    _mount("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", directory)
    yield directory
    _mount("umount", "--lazy", directory)


def _publish(publisher: Any, number: int, stored: list[str]) -> None:
    body = f"{number:03}" + "x" * 900_000
    publisher.publish(body, routing_key="doomed")
    stored.append(body[:3])


def _publish_until_refused(publishers: list[Any], stored: list[str]) -> None:
    for number in range(100):
        _publish(publishers[number % len(publishers)], number, stored)


@pytest.mark.slow
def test_a_disk_that_is_full_and_a_broker_that_died(small_disk: Path) -> None:
    """What was said to be stored is, and what was not is an error, in time."""
    options = {"publish_timeout": 5, "connect_timeout": 5}
    stored: list[str] = []
    with LocalKafka(directory=small_disk) as doomed:
        doomed.create_topic("doomed", 1)
        with ExitStack() as stack:
            publishers = [
                stack.enter_context(
                    Connection(
                        doomed.url(), transport_options={**options, "publisher_client": client}
                    )
                ).Producer()
                for client in PUBLISHER_CLIENTS
            ]
            with pytest.raises(BrokerUnavailableError, match="room on their disks"):
                _publish_until_refused(publishers, stored)
            for number, publisher in enumerate(publishers):
                with pytest.raises(BrokerUnavailableError, match="check"):
                    _publish(publisher, 900 + number, stored)
        assert len(stored) > 5
        with _app(doomed.url(), **options) as app:
            began = time.monotonic()
            with pytest.raises(KombuError, match="check"):
                app.send_task("t", queue="doomed", retry_policy={"max_retries": 1})
            assert time.monotonic() - began < SOON
        doomed.nodes[0].kill()
        _mount("mount", "-o", "remount,size=200m", small_disk)
        doomed.nodes[0].start()
        doomed.wait()
        found = [record.value[:3].decode() for record in Look(doomed).records("doomed")]
        assert set(stored) <= set(found)
        numbers = [name for name in found if name.isdigit()]
        assert sorted(set(numbers)) == sorted(numbers), "none is there twice"


@pytest.mark.slow
def test_a_broker_that_dies_between_two_messages(doomed: LocalKafka) -> None:
    options = {"publish_timeout": 4, "connect_timeout": 4}
    apps = [_app(doomed.url(), publisher_client=client, **options) for client in PUBLISHER_CLIENTS]
    for app in apps:
        app.send_task("t", queue="doomed")
    doomed.nodes[0].kill()
    for app in apps:
        began = time.monotonic()
        with pytest.raises(OperationalError, match="check that the brokers are up"):
            app.send_task("t", queue="doomed", retry_policy={"max_retries": 1})
        assert time.monotonic() - began < SOON
    doomed.nodes[0].start()
    doomed.wait()
    for app in apps:
        app.send_task("t", queue="doomed")
        app.close()
