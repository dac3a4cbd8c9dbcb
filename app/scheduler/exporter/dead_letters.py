"""How many dead letters there are, and which arrive."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from kombu_kafka.clients.consumers import new_consumer
from kombu_kafka.clients.fetching import poll
from kombu_kafka.options import Options
from kombu_kafka.publishing.dead_letters import HEADER_PREFIX

__all__ = ["DeadLetterWatch"]

#: Seconds of each look at Kafka that go to arrivals; what is left is read at the next.
MAX_SECONDS = 1.0
#: Bytes fetched at once; letters hold whole messages, of which only headers are looked at.
FETCH_BYTES = 4 * 1024 * 1024


class DeadLetterWatch:
    """Reads what is appended to the dead letter topic from now on.

    Arguments:
        options: brokers and credentials.
        topic: the dead letter topic.
        arrived: called with task, exception and reason of each letter.
    """

    def __init__(
        self, options: Options, topic: str, arrived: Callable[[str, str, str], object]
    ) -> None:
        self.topic = topic
        self._options = options
        self._arrived = arrived
        self._client: KafkaConsumer | None = None
        self._positions: dict[TopicPartition, int] = {}

    def read(
        self, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> None:
        """Take what has arrived since the last call.

        Arguments:
            begins: where each partition begins; other topics' are ignored.
            ends: where each ends.

        Raises:
            KafkaError: Kafka did not answer.
        """
        ends = {tp: end for tp, end in ends.items() if tp.topic == self.topic}
        known = bool(self._positions)
        for partition, end in ends.items():
            # A partition that is added later is new, so all in it has arrived since.
            start = begins.get(partition, 0) if known else end
            position = self._positions.setdefault(partition, start)
            if position > end:  # the topic was made anew
                position = start
            self._positions[partition] = max(position, begins.get(partition, 0))
        behind = [tp for tp, end in ends.items() if self._positions[tp] < end]
        if behind:
            self._fetch(behind, ends)

    def close(self) -> None:
        """Close the client; the positions stay."""
        client, self._client = self._client, None
        if client is not None:
            client.close(autocommit=False, timeout_ms=1000)

    def _fetch(self, behind: list[TopicPartition], ends: Mapping[TopicPartition, int]) -> None:
        if self._client is None:
            self._client = new_consumer(
                self._options, fetch_max_bytes=FETCH_BYTES, fetch_max_wait_ms=100
            )
        client = self._client
        client.assign(behind)
        for partition in behind:
            client.seek(partition, self._positions[partition])
        deadline = time.monotonic() + MAX_SECONDS
        while any(client.position(tp) < ends[tp] for tp in behind):
            for partition, records in poll(client, timeout_ms=100).items():
                for record in records:
                    self._count(record)
                self._positions[partition] = records[-1].offset + 1
            if time.monotonic() > deadline:
                break
        for partition in behind:
            self._positions[partition] = client.position(partition)
        client.assign([])

    def _count(self, record: Any) -> None:
        headers = {
            name: (value or b"").decode(errors="replace") for name, value in record.headers or ()
        }
        self._arrived(
            headers.get("task") or "unknown",
            headers.get(f"{HEADER_PREFIX}exception") or "none",
            headers.get(f"{HEADER_PREFIX}reason") or "unknown",
        )
