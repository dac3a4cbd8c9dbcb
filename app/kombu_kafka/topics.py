"""Questions about topics, each answered in a limited time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import (
    InvalidTopicError,
    UnknownTopicOrPartitionError,
    for_code,
)
from kafka.structs import TopicPartition

from .errors import PartitionNotFoundError
from .handshake import reaching
from .options import Options

__all__ = ("PartitionLag", "lag", "partition_count", "partition_counts")

#: Offset the group committed (None: none yet), and the offset after the partition's last record.
PartitionLag = tuple[int | None, int]

#: What brokers answer of a topic that isn't there, or whose name none can have.
_NO_SUCH_TOPIC = (UnknownTopicOrPartitionError.errno, InvalidTopicError.errno)


def partition_counts(options: Options) -> dict[str, int]:
    """Return the number of partitions of each topic that isn't Kafka's own.

    Raises:
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """
    with _admin(options) as admin:
        names = [name for name in admin.list_topics() if not name.startswith("__")]
        described = admin.describe_topics(names) if names else []
        return {topic["name"]: len(topic["partitions"]) for topic in described}


def partition_count(options: Options, topic: str) -> int:
    """Return the number of partitions of a topic.

    Raises:
        PartitionNotFoundError: there is no such topic.
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """
    with _admin(options) as admin:
        (described,) = admin.describe_topics([topic])
        if described["error_code"] not in (0, *_NO_SUCH_TOPIC):
            raise for_code(described["error_code"])(f"asked for the topic {topic}")
    if described["error_code"] in _NO_SUCH_TOPIC:
        raise PartitionNotFoundError(
            f"The topic {topic} does not exist on {', '.join(options.hosts)}: create it, or queue "
            f"a first task where the brokers create topics by themselves."
        )
    return len(described["partitions"])


def lag(options: Options, topic: str) -> dict[int, PartitionLag]:
    """Return what ``options.group_id`` has committed of a topic, and where its partitions end.

    Raises:
        PartitionNotFoundError: there is no such topic.
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """
    count = partition_count(options, topic)
    partitions = [TopicPartition(topic, number) for number in range(count)]
    with _consumer(options) as consumer:
        ends = consumer.end_offsets(partitions)
        return {
            partition.partition: (consumer.committed(partition), ends[partition])
            for partition in partitions
        }


@contextmanager
def _admin(options: Options) -> Iterator[KafkaAdminClient]:
    with reaching(options):
        client = KafkaAdminClient(**options.client_settings())
        try:
            yield client
        finally:
            client.close()


@contextmanager
def _consumer(options: Options) -> Iterator[KafkaConsumer]:
    with reaching(options):
        client = KafkaConsumer(
            **options.client_settings(),
            group_id=options.group_id,
            enable_auto_commit=False,
            metrics_enabled=False,
        )
        try:
            yield client
        finally:
            client.close(autocommit=False)
