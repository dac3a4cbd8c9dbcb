"""Polling, past a fault of Kafka's client."""

from __future__ import annotations

from typing import Any

from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

__all__ = ("poll",)


def poll(client: Any, **arguments: Any) -> dict[TopicPartition, list[ConsumerRecord]]:
    """Poll a consumer whose partitions are paused and resumed.

    kafka-python 3.0.12 sets records of a paused partition aside and takes them up again only where
    its place for the batch being read is None. A batch that is read to its end stays there, though:
    with several partitions, one that was paused is then never read again.

    Arguments:
        client: a ``KafkaConsumer``.
        arguments: as for its ``poll``.
    """
    fetcher = client._fetcher
    if fetcher._next_partition_records is not None and not fetcher._next_partition_records:
        fetcher._next_partition_records = None
    return client.poll(**arguments)  # type: ignore[no-any-return]
