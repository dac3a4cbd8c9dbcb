"""Polling, past faults of Kafka's client."""

from __future__ import annotations

from typing import Any

from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

__all__ = ("poll",)


def poll(client: Any, **arguments: Any) -> dict[TopicPartition, list[ConsumerRecord]]:
    """Poll a consumer whose partitions are paused and resumed, or that is a member of a group.

    Two faults of kafka-python 3.0.12 are mended here.

    A rebalance that a change of the subscription or of a topic's partitions set off goes on beyond
    the poll that began it. The next poll is to wait for its end, but as soon as the member has
    sent its subscription, or dealt the partitions out, the change counts as dealt with: nobody
    waits for the answer any more, and the member is left without heartbeats and without an
    assignment. So what is not finished is asked for again.

    The client sets records of a paused partition aside and takes them up again only where
    its place for the batch being read is None. A batch that is read to its end stays there, though:
    with several partitions, one that was paused is then never read again.

    Arguments:
        client: a ``KafkaConsumer``.
        arguments: as for its ``poll``.
    """
    coordinator = client._coordinator
    if coordinator.rejoining:
        coordinator.request_rejoin()
    fetcher = client._fetcher
    if fetcher._next_partition_records is not None and not fetcher._next_partition_records:
        fetcher._next_partition_records = None
    return client.poll(**arguments)  # type: ignore[no-any-return]
