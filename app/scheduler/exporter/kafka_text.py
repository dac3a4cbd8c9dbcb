"""What was seen of Kafka, as Prometheus reads it; written once a look, not once a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kafka.structs import TopicPartition

from scheduler.exporter.collector import View
from scheduler.exporter.families import escaped, head, number, sample
from scheduler.exporter.lag import PartitionLag
from scheduler.exporter.record_times import Place
from scheduler.metrics import EXPORTER

__all__ = ["render"]


def render(view: View, *, group: str, topic: str) -> list[bytes]:
    """Write a view, in parts: one large one would keep other threads waiting while it is made.

    Arguments:
        view: what was seen.
        group: the workers' group.
        topic: the workers' queue.
    """
    parts = [
        *_lags(view),
        *_groups(view),
        *_partitions(view),
    ]
    if any(pair.topic == topic and pair.group == group for pair in view.snapshot.lags):
        parts.append(_one("celery_queue_length", [((topic,), view.snapshot.length(group, topic))]))
    return [part for part in parts if part]


def _lags(view: View) -> Iterator[bytes]:
    lags = view.snapshot.lags
    labels = {
        pair: f'{{group="{escaped(pair.group)}",topic="{escaped(pair.topic)}",'
        f'partition="{pair.partition}"}} '
        for pair in lags
    }

    def of(name: str, value: Callable[[PartitionLag], int | None]) -> bytes:
        values = ((pair, value(lag)) for pair, lag in lags.items())
        found = [f"{name}{labels[pair]}{value}" for pair, value in values if value is not None]
        return _family(name, found)

    yield of("kafka_consumer_group_lag", lambda lag: lag.lag)
    yield of("kafka_consumer_group_committed_offset", lambda lag: lag.committed)
    yield of("kafka_consumer_group_watermark_distance", lambda lag: lag.distance)
    yield of("kafka_consumer_group_unfinished_records", lambda lag: lag.unfinished)
    seconds, owners, counts = [], [], []
    begins = view.snapshot.offsets.begins
    for pair, lag in lags.items():
        age: float | None = 0.0
        if lag.lag:
            partition = TopicPartition(pair.topic, pair.partition)
            place = Place(partition, max(lag.committed or 0, begins.get(partition, 0)))
            written = view.oldest.get(place)
            age = None if written is None else max(0.0, round(view.at - written, 3))
        if age is not None:
            seconds.append(f"kafka_consumer_group_lag_seconds{labels[pair]}{number(age)}")
        for owner in lag.owners:
            own = f'{labels[pair][:-2]},owner="{escaped(owner)}"}} 1'
            owners.append(f"kafka_consumer_group_partition_owner{own}")
        if lag.owners:
            counts.append(f"kafka_consumer_group_partition_owners{labels[pair]}{len(lag.owners)}")
    for name, found in (
        ("kafka_consumer_group_lag_seconds", seconds),
        ("kafka_consumer_group_partition_owner", owners),
        ("kafka_consumer_group_partition_owners", counts),
    ):
        yield _family(name, found)


def _groups(view: View) -> Iterator[bytes]:
    snapshot = view.snapshot
    yield _one("kafka_consumer_group_drain_seconds", snapshot.drain.items())
    yield _one("kafka_consumer_group_up", (((name,), up) for name, up in snapshot.up.items()))
    yield _one(
        "kafka_consumer_group_members",
        (((name,), count) for name, count in snapshot.members.items()),
    )


def _partitions(view: View) -> Iterator[bytes]:
    offsets = view.snapshot.offsets
    for name, found in (
        ("kafka_topic_partition_begin_offset", offsets.begins),
        ("kafka_topic_partition_end_offset", offsets.ends),
    ):
        yield _one(name, (((tp.topic, str(tp.partition)), at) for tp, at in found.items()))


def _one(name: str, samples: Iterable[tuple[tuple[str, ...], float]]) -> bytes:
    labels = EXPORTER[name].labels
    return _family(name, [sample(name, labels, found) + number(value) for found, value in samples])


def _family(name: str, samples: list[str]) -> bytes:
    return "\n".join([*head(EXPORTER[name]), *samples, ""]).encode() if samples else b""
