"""Consumers of Kafka's client: made in one place, read in one way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CorruptRecordError, KafkaTimeoutError
from kafka.structs import TopicPartition

from ..options import Options
from ..record import UNREADABLE
from .fetching import poll
from .handshake import reaching
from .lookup import be_patient
from .records import PartitionRecords

__all__ = ("consumer", "new_consumer", "read", "unreadable")

#: What every consumer of ours is told, unless it says otherwise: offsets are committed by whoever
#: knows what is done, nothing is passed over, and nothing that is not committed is read.
DEFAULTS: dict[str, Any] = {
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "isolation_level": "read_committed",
    "allow_auto_create_topics": False,
    "metrics_enabled": False,
}
#: Milliseconds that :func:`read` waits for records at once.
POLL_MS = 500


def new_consumer(options: Options, **settings: Any) -> KafkaConsumer:
    """Return a consumer, connected.

    Arguments:
        options: the brokers.
        settings: what differs from :data:`DEFAULTS`, by kafka-python's names.

    Raises:
        KafkaError: no broker answered within ``connect_timeout``, or a setting is wrong.
    """
    client = KafkaConsumer(**{**options.client_settings(), **DEFAULTS, **settings})
    # kafka-python 3.0.12 does not pass it on: a deleted topic would come back.
    client._cluster.config["allow_auto_create_topics"] = False
    client._fetcher.PartitionRecords = PartitionRecords
    be_patient(client)
    return client


@contextmanager
def consumer(options: Options, **settings: Any) -> Iterator[KafkaConsumer]:
    """A consumer, closed at the end; see :func:`new_consumer`.

    Raises:
        AuthenticationError: the brokers don't let this client in.
        ConfigurationError: they let it in, but it may not do this.
        BrokerUnavailableError: none of them answered in time.
    """
    with reaching(options):
        client = new_consumer(options, **settings)
        try:
            yield client
        finally:
            client.close(autocommit=False, timeout_ms=1000)


def read(
    client: KafkaConsumer, bounds: Mapping[TopicPartition, tuple[int, int]], patience: float
) -> Iterator[list[ConsumerRecord]]:
    """Yield the records between two offsets of each partition, as they come.

    The client is then assigned these partitions and stands at the second of their offsets.

    Arguments:
        client: used by nobody else meanwhile.
        bounds: the first offset, and the one after the last, of each partition.
        patience: seconds without any progress after which reading has failed.

    Raises:
        KafkaTimeoutError: nothing came for so long.
        KafkaError: what the client raised.
    """
    client.assign(list(bounds))
    client.resume(*bounds)  # a partition assigned before keeps its pause
    for partition, (start, end) in bounds.items():
        client.seek(partition, min(start, end))
    left = {partition: end for partition, (start, end) in bounds.items() if start < end}
    client.pause(*(bounds.keys() - left.keys()))
    deadline = time.monotonic() + patience
    while left:
        for partition, records in poll(client, timeout_ms=POLL_MS).items():
            deadline = time.monotonic() + patience
            if wanted := [one for one in records if one.offset < left.get(partition, 0)]:
                yield wanted
        for partition, end in list(left.items()):
            # Past transaction markers and compacted records, which no poll returns.
            position = client._subscription.assignment[partition].position
            if position is not None and position.offset >= end:
                del left[partition]
                client.pause(partition)
                client.seek(partition, end)
        if left and time.monotonic() > deadline:
            names = ", ".join(f"{one.topic}-{one.partition}" for one in left)
            raise KafkaTimeoutError(f"no record of {names} came for {patience:g} seconds")
    client.resume(*bounds)


def unreadable(client: KafkaConsumer, exc: CorruptRecordError) -> ConsumerRecord:
    """Go past a record that the client can't parse; return what stands in for it.

    Fetching it again would fail again, and the client would never get past it.

    Arguments:
        client: whose poll failed.
        exc: with what; raised again if it can't be said where.
    """
    failed = client._fetcher._next_partition_records
    if failed is None:
        raise exc
    partition: TopicPartition = failed.topic_partition
    offset = int(client._subscription.assignment[partition].position.offset)
    client.seek(partition, offset + 1)
    reason = (UNREADABLE, str(exc).encode())
    return ConsumerRecord(
        partition.topic, partition.partition, -1, offset, -1, 0, None, None, [reason], None,
        -1, -1, -1,
    )  # fmt: skip
