"""What waits in the delay topic: for monitoring, from any process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from ..clients.consumers import consumer
from ..clients.fetching import poll
from ..consuming.ranges import within
from ..options import Options
from . import messages as delay
from .level import Entry, Level
from .opening import digest_of, trusted
from .topics import group_of

__all__ = ("LevelBacklog", "backlog", "late_by")

#: Seconds within which the heads of all levels must be read.
HEADS_SECONDS = 5.0
#: Bytes of a level that are read: its first records.
HEAD_BYTES = 16 * 1024


@dataclass(frozen=True)
class LevelBacklog:
    """What waits in a level.

    Attributes:
        number: which level.
        wait: how long it waits, in seconds.
        waiting: offsets not yet forwarded: the number of messages or, as Kafka counts the ends of
            transactions too, some more.
        ready_at: when its head goes on, seconds since the epoch; None without one. One that goes
            to another level may do so later: that can wait.
        late: for how many seconds one of its first messages has been due; 0 if none is.
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
    settings = {"group_id": group_of(options), "max_partition_fetch_bytes": HEAD_BYTES}
    with consumer(options, **settings) as client:
        return _backlog(client, options.delay_topic)


def late_by(entries: Sequence[Entry], now: float) -> float:
    """Return for how long one of them has been due at most, in seconds; 0 if none is.

    Not since when they should have gone to another level: what is due goes before that.

    Arguments:
        entries: of one level, none of them forwarded.
        now: seconds since the epoch.
    """
    return max((0.0, *(now - entry.due / 1000 for entry in entries)))


def _backlog(client: KafkaConsumer, topic: str) -> list[LevelBacklog]:
    partitions = [
        TopicPartition(topic, number) for number in sorted(client.partitions_for_topic(topic) or ())
    ]
    if not partitions:
        return []
    # In this order: what is committed meanwhile does not lie beyond the ends.
    committed = {one: client.committed(one, metadata=True) for one in partitions}
    first, ends = client.beginning_offsets(partitions), client.end_offsets(partitions)
    digest = digest_of(client, topic)
    levels = {
        one: Level(one.partition, first[one], trusted(committed[one], ends[one], digest)[0])
        for one in partitions
    }
    waiting = {one: level.unforwarded(ends[one]) for one, level in levels.items()}
    heads = _heads(client, {one: levels[one] for one in partitions if waiting[one]}, ends)
    now = time.time()
    return [
        LevelBacklog(
            number=one.partition,
            wait=delay.wait_ms(one.partition) / 1000,
            waiting=waiting[one] if one in heads else 0,
            ready_at=heads[one][0].ready / 1000 if one in heads else None,
            late=late_by(heads.get(one, ()), now),
        )
        for one in partitions
    ]


def _heads(
    client: KafkaConsumer, levels: dict[TopicPartition, Level], ends: dict[TopicPartition, int]
) -> dict[TopicPartition, list[Entry]]:
    """Return the first records that are not forwarded of each partition that has some."""
    heads: dict[TopicPartition, list[Entry]] = {}
    client.assign(list(levels))
    for partition, level in levels.items():
        client.seek(partition, level.position)
    deadline = time.monotonic() + HEADS_SECONDS
    left = set(levels)
    while left and time.monotonic() < deadline:
        for partition, records in poll(client, timeout_ms=100).items():
            level = levels[partition]
            entries = [Entry(r, level) for r in records if not within(level.known, r.offset)]
            if entries and partition not in heads:
                heads[partition] = entries
        done = {p for p in left if p in heads or client.position(p) >= ends[p]}
        client.pause(*done)
        left -= done
    return heads
