"""Reading a topic as it is now: no group, no offsets committed, nothing of an open transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka.structs import TopicPartition

from kombu_kafka.clients.consumers import new_consumer, read
from kombu_kafka.clients.handshake import reaching
from kombu_kafka.options import Options
from scheduler.dlq.letters import Letter, LetterId, from_record

__all__ = ["Reader", "reachable", "rights"]

#: Bytes asked of a partition, and of a broker, at once: a topic is read whole, as fast as it goes.
PARTITION_BYTES = 8 << 20
BROKER_BYTES = 64 << 20
#: Records of a poll.
POLL_RECORDS = 5000
#: Records between two wanted ones that are read over rather than sought past.
NEAR = 500
#: A topic made anew is noticed after this.
METADATA_MAX_AGE_MS = 30_000
#: Seconds without any record after which reading counts as failed.
PATIENCE = 60.0


class Reader:
    """Reads whole topics, or single records of them.

    Args:
        options: Where the brokers are.

    Raises:
        BrokerUnavailableError: No broker answered within `connect_timeout`.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        with reachable(options):
            self._client = new_consumer(
                options,
                max_poll_records=POLL_RECORDS,
                max_partition_fetch_bytes=PARTITION_BYTES,
                fetch_max_bytes=BROKER_BYTES,
                metadata_max_age_ms=METADATA_MAX_AGE_MS,
            )

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the brokers."""
        self._client.close(autocommit=False)

    def topic_id(self, topic: str) -> str | None:
        """Return the id Kafka gave a topic when it was made; None if there is no such topic."""
        with reachable(self._options):
            if not self._client.partitions_for_topic(topic):
                return None
            return str(self._client._cluster.topic_id(topic))

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Return a topic's partitions; none if there is no such topic."""
        with reachable(self._options):
            numbers = self._client.partitions_for_topic(topic) or ()
            return [TopicPartition(topic, number) for number in sorted(numbers)]

    def bounds(self, topic: str) -> dict[TopicPartition, tuple[int, int]]:
        """Return the first offset of each partition and the one after its last."""
        partitions = self.partitions(topic)
        if not partitions:
            return {}
        with reachable(self._options):
            first = self._client.beginning_offsets(partitions)
            last = self._client.end_offsets(partitions)
            return {one: (first[one], last[one]) for one in partitions}

    def offsets_at(self, topic: str, seconds: float) -> dict[TopicPartition, int]:
        """Return the first offset written at a time or later, where a partition has one."""
        partitions = self.partitions(topic)
        with reachable(self._options):
            found = self._client.offsets_for_times(dict.fromkeys(partitions, int(seconds * 1000)))
            return {one: place.offset for one, place in found.items() if place is not None}

    def read(
        self,
        bounds: Mapping[TopicPartition, tuple[int, int]],
        positions: dict[TopicPartition, int] | None = None,
    ) -> Iterator[Any]:
        """Yield the records between two offsets of each partition.

        Args:
            bounds: The first offset, and the one after the last, of each partition.
            positions: Filled, once all is read, with where to go on from later.

        Raises:
            BrokerUnavailableError: The brokers stopped answering.
        """
        left = {one: (start, end) for one, (start, end) in bounds.items() if start < end}
        if left:
            yield from self._read(left)
        if positions is not None:
            positions.update({one: end for one, (_, end) in bounds.items()})

    def _read(self, left: dict[TopicPartition, tuple[int, int]]) -> Iterator[Any]:
        fetched = read(self._client, left, PATIENCE)
        while True:
            with reachable(self._options):
                records = next(fetched, None)
            if records is None:
                return
            yield from records

    def records(self, topic: str, wanted: Iterable[tuple[int, int]]) -> Iterator[Any]:
        """Yield single records by partition and offset, in that order; those that are gone are left out."""
        bounds = {one.partition: between for one, between in self.bounds(topic).items()}
        for run in _runs(sorted(set(wanted))):
            partition, first, last = run[0][0], run[0][1], run[-1][1]
            low, high = bounds.get(partition, (0, 0))
            offsets = {offset for _, offset in run}
            where = TopicPartition(topic, partition)
            for record in self.read({where: (max(first, low), min(last + 1, high))}):
                if record.offset in offsets:
                    yield record

    def letters(self, topic: str, ids: Iterable[LetterId]) -> Iterator[Letter]:
        """Yield whole letters by their ids, in the order of those."""
        for record in self.records(topic, ids):
            yield from_record(record)


def _runs(wanted: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Split sorted places into runs worth reading in one go."""
    run: list[tuple[int, int]] = []
    for place in wanted:
        if run and (place[0] != run[-1][0] or place[1] - run[-1][1] > NEAR):
            yield run
            run = []
        run.append(place)
    if run:
        yield run


@contextmanager
def reachable(options: Options) -> Iterator[None]:
    """Turn what Kafka's client raises into one sentence."""
    with reaching(options, rights(options)):
        yield


def rights(options: Options) -> str:
    """Return what a person needs who looks after dead letters."""
    return f"Read and Write on {options.dead_letter_topic} and its history"
