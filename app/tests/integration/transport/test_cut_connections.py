"""Connections that break at the worst moments: a request or its answer is lost on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from kafka.protocol.consumer import OffsetCommitRequest
from kafka.protocol.producer import EndTxnRequest
from kombu import Connection, Consumer, Queue

from kombu_kafka.errors import BrokerUnavailableError
from kombu_kafka.publishing import producer
from scheduler.local_broker import LocalBrokerError, LocalKafka
from tests.chaos.proxy import Proxy
from tests.eventually import eventually

from .conftest import Look, each_client

#: What is lost: what the client sends, or what the broker answers.
LOST = ("requests", "answers")
ROUNDS = 3


@dataclass
class Line:
    """A broker, and the line to it that a test may cut."""

    kafka: LocalKafka
    proxy: Proxy
    look: Look

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.proxy.port}//tasks"

    @contextmanager
    def losing(self, what: str) -> Iterator[None]:
        """Lose what is sent meanwhile; at the end every connection breaks, and new ones work."""
        self.proxy.lost, self.proxy.loses = 0, what
        try:
            yield
        finally:
            self.proxy.restore()

    @contextmanager
    def losing_answers_to(self, request: int) -> Iterator[None]:
        """Let a request of this kind through, and lose its answer and those that follow."""
        self.proxy.lost, self.proxy.loses_answers_to = 0, frozenset({request})
        try:
            yield
        finally:
            self.proxy.restore()

    def lost(self, size: int) -> None:
        """Wait until so many bytes were lost."""
        eventually(lambda: self.proxy.lost >= size, 60)


@pytest.fixture(scope="module")
def line(kafka: LocalKafka) -> Iterator[Line]:
    """One broker of our own behind a proxy. (`kafka` says whether any can run.)"""
    cluster = LocalKafka(listeners={"PROXIED": "PLAINTEXT"})
    (node,) = cluster.nodes
    proxy = Proxy(node.ports["PROXIED"])
    node.advertised["PROXIED"] = f"127.0.0.1:{proxy.port}"
    proxy.start()
    try:
        cluster.start()
    except LocalBrokerError as exc:  # the session's broker ran, so this is a fault
        pytest.fail(str(exc))
    yield Line(cluster, proxy, Look(cluster))
    producer.close_all(1)
    cluster.stop()
    proxy.stop()


@pytest.fixture
def cut_topic(line: Line, topic_name: str) -> str:
    line.kafka.create_topic(topic_name, 1)
    return topic_name


class Publish(threading.Thread):
    """Publishes one message."""

    def __init__(self, publisher: Any, body: str, topic: str) -> None:
        super().__init__(daemon=True)
        self._what = publisher, body, topic
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        publisher, body, topic = self._what
        try:
            publisher.publish(body, routing_key=topic)
        except BaseException as exc:  # noqa: BLE001 (the test looks at it)
            self.error = exc

    def wait(self) -> BaseException | None:
        self.join(120)
        assert not self.is_alive(), "the publisher hears nothing"
        return self.error


@each_client
@pytest.mark.parametrize("what", LOST)
def test_a_publish_that_is_cut_off_is_confirmed_and_stored_once(
    line: Line, cut_topic: str, what: str, publisher_client: str
) -> None:
    def there(count: int) -> None:
        eventually(lambda: len(line.look.records(cut_topic)) == count, 60)

    options = {"publish_timeout": 60, "publisher_client": publisher_client}
    with Connection(line.url, transport_options=options) as connection:
        publisher = connection.Producer()
        publisher.publish("first", routing_key=cut_topic)
        for number in range(ROUNDS):
            body = f"{number}-" + "x" * 3000
            with line.losing(what):
                waiting = Publish(publisher, body, cut_topic)
                if what == "requests":
                    line.lost(3000)
                else:
                    there(number + 2)
                assert waiting.is_alive(), "confirmed by nobody"
            assert waiting.wait() is None
    found = [record.value[:2] for record in line.look.records(cut_topic)]
    assert found == [b"fi", *(f"{number}-".encode() for number in range(ROUNDS))]


@each_client
def test_a_publish_without_a_broker_is_an_error_and_the_next_one_works(
    line: Line, cut_topic: str, publisher_client: str
) -> None:
    options = {"publish_timeout": 3, "connect_timeout": 3, "publisher_client": publisher_client}
    with Connection(line.url, transport_options=options) as connection:
        publisher = connection.Producer()

        def works(body: str) -> bool:
            error = Publish(publisher, body, cut_topic).wait()
            assert error is None or isinstance(error, BrokerUnavailableError), error
            return error is None

        eventually(lambda: works("first"), 120)  # three seconds may be short on a busy machine
        with line.losing("requests"):
            waiting = Publish(publisher, "lost", cut_topic)
            error = waiting.wait()
            assert isinstance(error, BrokerUnavailableError), error
        eventually(lambda: works("next"), 120)
    found = [record.value for record in line.look.records(cut_topic)]
    # What was not confirmed may be stored, once; what was, is.
    assert found.count(b"lost") <= 1
    assert found[0] == b"first"
    assert found[-1] == b"next"


@pytest.mark.parametrize("what", LOST)
@pytest.mark.parametrize("partitions", [[0], None], ids=["bound", "group"])
def test_an_acknowledgement_that_is_cut_off_is_repeated_until_it_works(
    line: Line, cut_topic: str, partitions: list[int] | None, what: str
) -> None:
    """Where its answer is lost, Kafka has it and the consumer does not know."""
    options = {
        "group_id": cut_topic, "partitions": partitions, "ordering": "none",
        "commit_interval": 0.05,
        "connect_timeout": 20, "delay_dispatcher": False, "session_timeout": 60,
    }  # fmt: skip
    last_step = EndTxnRequest if partitions else OffsetCommitRequest
    with Connection(line.kafka.url(), transport_options={}) as connection:
        for number in range(ROUNDS + 1):
            connection.Producer().publish(number, routing_key=cut_topic)

    def committed(offset: int) -> None:
        eventually(lambda: line.look.committed(cut_topic, cut_topic)[0] == offset, 90)

    got: list[Any] = []
    with Connection(line.url, transport_options=options) as connection:
        with Consumer(
            connection.channel(), [Queue(cut_topic)], on_message=got.append, prefetch_count=ROUNDS
        ):
            while len(got) < ROUNDS:
                connection.drain_events(timeout=60)
            transport = connection.transport
            inbox = transport.consumer.inbox
            for number in range(ROUNDS):
                eventually(lambda: not inbox.commits(uncommitted=True), 90)
                if what == "requests":
                    with line.losing("requests"):
                        got[number].ack()
                        line.lost(100)
                    committed(number + 1)
                else:
                    with line.losing_answers_to(last_step.API_KEY):
                        got[number].ack()
                        committed(number + 1)
                        line.lost(1)
                        assert inbox.commits(uncommitted=True), "it can't know"
            while len(got) <= ROUNDS:
                connection.drain_events(timeout=60)
            got[ROUNDS].ack()
            committed(ROUNDS + 1)
        assert transport.consumer.error is None
    transport.consumer.join()
    assert [message.payload for message in got] == [*range(ROUNDS + 1)], "delivered once each"
    assert line.look.committed(cut_topic, cut_topic)[0] == ROUNDS + 1
    producer.close_all(1)
