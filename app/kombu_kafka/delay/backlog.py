"""What waits in the delay topic: for monitoring, from any process."""

from __future__ import annotations

import time
from dataclasses import dataclass

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from ..clients.consumers import consumer
from ..clients.fetching import poll
from ..options import Options
from . import messages as delay
from .level import Entry, Level
from .topics import group_of

__all__ = ("LevelBacklog", "backlog")

#: Seconds within which the heads of all levels must be read.
HEADS_SECONDS = 5.0


@dataclass(frozen=True)
class LevelBacklog:
    """What waits in a level.

    Attributes:
        number: which level.
        wait: how long it waits, in seconds.
        waiting: offsets not yet forwarded: the number of messages or, as Kafka counts the ends of
            transactions too, some more.
        ready_at: when its head goes on, seconds since the epoch; None without one.
        late: for how many seconds it should have done so; 0 if it is not ready yet.
    """

    number: int
    wait: float
    waiting: int
    ready_at: float | None
    late: float


def backlog(options: Options) -> list[LevelBacklog]:
    """Return what waits in each level; nothing where there is no delay topic.

    The largest ``late`` says whether a dispatcher is at work.

    Raises:
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """
    if options.delay_topic is None:
        return []
    settings = {"group_id": group_of(options), "max_partition_fetch_bytes": 1024}
    with consumer(options, **settings) as client:
        return _backlog(client, options.delay_topic)


def _backlog(client: KafkaConsumer, topic: str) -> list[LevelBacklog]:
    partitions = [
        TopicPartition(topic, number) for number in sorted(client.partitions_for_topic(topic) or ())
    ]
    if not partitions:
        return []
    first, ends = client.beginning_offsets(partitions), client.end_offsets(partitions)
    starts = {
        partition: max(first[partition], client.committed(partition) or 0)
        for partition in partitions
    }
    waiting = {partition: ends[partition] - starts[partition] for partition in partitions}
    heads = _heads(client, {p: starts[p] for p in partitions if waiting[p]}, ends)
    now = time.time()
    found = []
    for partition in partitions:
        number, head = partition.partition, heads.get(partition)
        ready = None if head is None else head.ready / 1000
        found.append(
            LevelBacklog(
                number=number,
                wait=delay.wait_ms(number) / 1000,
                waiting=waiting[partition] if head else 0,
                ready_at=ready,
                late=0.0 if ready is None else max(0.0, now - ready),
            )
        )
    return found


def _heads(
    client: KafkaConsumer, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int]
) -> dict[TopicPartition, Entry]:
    """Return the first record of each partition that has one."""
    heads: dict[TopicPartition, Entry] = {}
    client.assign(list(starts))
    for partition, offset in starts.items():
        client.seek(partition, offset)
    deadline = time.monotonic() + HEADS_SECONDS
    left = set(starts)
    while left and time.monotonic() < deadline:
        for partition, records in poll(client, timeout_ms=100).items():
            if partition not in heads:
                heads[partition] = Entry(records[0], Level(partition.partition))
        done = {p for p in left if p in heads or client.position(p) >= ends[p]}
        client.pause(*done)
        left -= done
    return heads
