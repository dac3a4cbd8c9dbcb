"""Fixtures for every test of the app: a real Kafka, started once for the session."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from kafka import KafkaAdminClient

from scheduler.local_broker import LocalBrokerError, LocalKafka
from tests.secure_kafka import Authority, secure_kafka

# No test depends on how fast the machine is, and where CI decides, none on chance: everybody else's runs explore.
settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("project")


def _started(start: Callable[[], LocalKafka]) -> LocalKafka:
    try:
        return start()
    except LocalBrokerError as exc:
        pytest.fail(f"These tests need a real broker (`make tools archive`): {exc}", pytrace=False)


@pytest.fixture(scope="session")
def kafka() -> Iterator[LocalKafka]:
    """A broker of our own."""
    cluster = _started(lambda: LocalKafka().start())
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates of `secure_broker` and of its clients."""
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.issue("client")
    return made


@pytest.fixture(scope="session")
def secure_broker(authority: Authority) -> Iterator[LocalKafka]:
    """A broker that demands TLS certificates, or users and their passwords (`tests.secure_kafka`)."""
    cluster = _started(lambda: secure_kafka(authority))
    yield cluster
    cluster.stop()


@pytest.fixture
def admin(kafka: LocalKafka) -> Iterator[KafkaAdminClient]:
    """An admin client on the session's broker."""
    client = kafka.admin()
    yield client
    client.close()


@pytest.fixture
def topic_name() -> str:
    """A topic name that no other test uses; the topic is not made."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def topic(kafka: LocalKafka, topic_name: str) -> str:
    """A fresh topic of four partitions."""
    kafka.create_topic(topic_name, 4)
    return topic_name
