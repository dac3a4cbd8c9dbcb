"""Questions about topics, each answered in a limited time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kafka import KafkaAdminClient
from kafka.errors import (
    InvalidTopicError,
    UnknownTopicOrPartitionError,
    for_code,
)
from kafka.structs import TopicPartition

from .clients.consumers import consumer
from .clients.handshake import reaching
from .errors import PartitionNotFoundError
from .options import Options

__all__ = (
    "PartitionLag",
    "admin_client",
    "describe",
    "lag",
    "partition_count",
    "partition_counts",
)

#: Offset the group committed (None: none yet), and the offset after the partition's last record.
PartitionLag = tuple[int | None, int]

#: What brokers answer of a topic that isn't there, or whose name none can have.
_NO_SUCH_TOPIC = (UnknownTopicOrPartitionError.errno, InvalidTopicError.errno)


def partition_counts(options: Options) -> dict[str, int]:
    """Return the number of partitions of each topic that isn't Kafka's own.

    Raises:
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """
    with admin_client(options) as admin:
        names = [name for name in admin.list_topics() if not name.startswith("__")]
        described = admin.describe_topics(names) if names else []
        return {topic["name"]: len(topic["partitions"]) for topic in described}


def partition_count(options: Options, topic: str) -> int:
    """Return the number of partitions of a topic.

    Raises:
        PartitionNotFoundError: there is no such topic.
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """
    with admin_client(options) as admin:
        count = describe(admin, [topic])[topic]
    if not count:
        raise PartitionNotFoundError(
            f"The topic {topic} does not exist on {', '.join(options.hosts)}: create it, or queue "
            f"a first task where the brokers create topics by themselves."
        )
    return count


def describe(admin: KafkaAdminClient, topics: Iterable[str]) -> dict[str, int]:
    """Return the number of partitions of each topic; 0 where there is no such topic."""
    counts: dict[str, int] = {}
    for topic in admin.describe_topics(list(topics)):
        error = topic["error_code"]
        if error not in (0, *_NO_SUCH_TOPIC):
            raise for_code(error)(f"asked for the topic {topic['name']}")
        counts[topic["name"]] = 0 if error else len(topic["partitions"])
    return counts


def lag(options: Options, topic: str) -> dict[int, PartitionLag]:
    """Return what ``options.group_id`` has committed of a topic, and where its partitions end.

    Raises:
        PartitionNotFoundError: there is no such topic.
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """
    count = partition_count(options, topic)
    partitions = [TopicPartition(topic, number) for number in range(count)]
    # As Kafka's own tools count it: what an open transaction wrote is behind, too.
    settings = {"group_id": options.group_id, "isolation_level": "read_uncommitted"}
    with consumer(options, **settings) as client:
        ends = client.end_offsets(partitions)
        return {
            partition.partition: (client.committed(partition), ends[partition])
            for partition in partitions
        }


@contextmanager
def admin_client(options: Options, operation: str = "the operation") -> Iterator[KafkaAdminClient]:
    """An admin client, closed at the end.

    Arguments:
        options: brokers and credentials.
        operation: what to grant this client if it may not do what it is used for.

    Raises:
        BrokerUnavailableError: Kafka did not answer, or answered with an error.
    """
    with reaching(options, operation):
        client = KafkaAdminClient(**options.client_settings())
        try:
            yield client
        finally:
            client.close()
