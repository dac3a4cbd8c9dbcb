"""Reading a topic as it is now: no group, no offsets committed, nothing of an open transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import AuthorizationError, KafkaError
from kafka.structs import TopicPartition

from kombu_kafka.errors import BrokerUnavailableError, ConfigurationError, KombuKafkaError
from kombu_kafka.options import Options
from scheduler.dlq.letters import Letter, LetterId, from_record

__all__ = ["Reader", "reachable"]

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
            self._client = KafkaConsumer(
                **options.client_settings(),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                max_poll_records=POLL_RECORDS,
                max_partition_fetch_bytes=PARTITION_BYTES,
                fetch_max_bytes=BROKER_BYTES,
                metadata_max_age_ms=METADATA_MAX_AGE_MS,
                metrics_enabled=False,
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
            positions: Filled with where reading stands, to go on from later.

        Raises:
            BrokerUnavailableError: The brokers stopped answering.
        """
        left = {one: (start, end) for one, (start, end) in bounds.items() if start < end}
        if positions is not None:
            positions.update({one: end for one, (_, end) in bounds.items()})
        if not left:
            return
        with reachable(self._options):
            self._client.assign(list(left))
            self._client.resume(*left)  # a partition assigned before keeps its pause
            for one, (start, _) in left.items():
                self._client.seek(one, start)
        deadline = time.monotonic() + PATIENCE
        while left:
            with reachable(self._options):
                fetched = self._client.poll(timeout_ms=500)
            for one, records in fetched.items():
                for record in records:
                    if one in left and record.offset < left[one][1]:
                        yield record
            if fetched:
                deadline = time.monotonic() + PATIENCE
            for one in list(left):
                position = self._client._subscription.assignment[one].position
                if position is not None and position.offset >= left[one][1]:
                    del left[one]
                    self._client.pause(one)
            if time.monotonic() > deadline:
                raise BrokerUnavailableError(
                    f"Kafka gave no record of {', '.join(f'{one.topic}-{one.partition}' for one in left)}"
                    f" for {PATIENCE:g} seconds: check the brokers."
                )

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
    try:
        yield
    except KombuKafkaError:
        raise
    except AuthorizationError as exc:
        raise ConfigurationError(
            f"This client may not do that ({type(exc).__name__}: {exc}): grant it Read and Write on"
            f" {options.dead_letter_topic} and its history with kafka-acls.sh."
        ) from exc
    except KafkaError as exc:
        raise BrokerUnavailableError(
            f"Kafka at {', '.join(options.hosts)} did not answer as it should ({exc}): check the"
            " addresses and that the brokers are up."
        ) from exc
