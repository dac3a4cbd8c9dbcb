"""When the record at an offset was written: looked up for few, remembered, never for long."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from kombu_kafka.clients.consumers import new_consumer
from kombu_kafka.clients.fetching import poll
from kombu_kafka.options import Options

__all__ = ["Place", "RecordTimes"]

#: Places looked up at once.
MAX_LOOKUPS = 500
#: Seconds that one look-up may take, all places together.
MAX_SECONDS = 2.0
#: Times remembered.
MAX_KNOWN = 100_000
#: Bytes asked for of a partition: the first record batch comes whole whatever it measures.
PARTITION_BYTES = 16 * 1024
#: Bytes asked for at once.
FETCH_BYTES = 4 * 1024 * 1024


class Place(NamedTuple):
    """An offset of a partition."""

    partition: TopicPartition
    offset: int


class RecordTimes:
    """Times of records, in seconds since the epoch.

    Arguments:
        options: brokers and credentials.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client: KafkaConsumer | None = None
        self._known: OrderedDict[Place, float] = OrderedDict()

    def known(self, place: Place) -> float | None:
        """Return what is known of the first record at `place` or after it."""
        return self._known.get(place)

    def look_up(self, places: Iterable[Place]) -> None:
        """Find the times of the first places that are unknown.

        Raises:
            KafkaError: Kafka did not answer.
        """
        unknown = [place for place in dict.fromkeys(places) if place not in self._known]
        deadline = time.monotonic() + MAX_SECONDS
        waiting = unknown[:MAX_LOOKUPS]
        while waiting and time.monotonic() < deadline:
            # A partition can be read from one place at a time.
            batch = {place.partition: place.offset for place in reversed(waiting)}
            self._fetch(batch, deadline)
            waiting = [place for place in waiting if batch.get(place.partition) != place.offset]

    def close(self) -> None:
        """Close the client."""
        client, self._client = self._client, None
        if client is not None:
            client.close(autocommit=False, timeout_ms=1000)

    def _fetch(self, batch: dict[TopicPartition, int], deadline: float) -> None:
        if self._client is None:
            self._client = new_consumer(
                self._options,
                isolation_level="read_uncommitted",
                max_partition_fetch_bytes=PARTITION_BYTES,
                fetch_max_bytes=FETCH_BYTES,
                fetch_max_wait_ms=100,
                max_poll_records=MAX_LOOKUPS,
            )
        client = self._client
        client.assign(list(batch))
        for partition, offset in batch.items():
            client.seek(partition, offset)
        missing = set(batch)
        while missing and time.monotonic() < deadline:
            for partition, records in poll(client, timeout_ms=100).items():
                if partition in missing and records:
                    missing.discard(partition)
                    client.pause(partition)
                    place = Place(partition, batch[partition])
                    self._known[place] = records[0].timestamp / 1000
        client.assign([])
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
