"""Partitions that are bound to this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kafka.errors import UnknownTopicOrPartitionError
from kafka.structs import OffsetAndMetadata, TopicPartition

from .errors import PartitionNotFoundError
from .ownership import Ownership

__all__ = ("StaticOwnership",)


class StaticOwnership(Ownership):
    """Owns the partitions that the option `partitions` numbers, of every topic."""

    def step(self, topics: Collection[str]) -> None:
        for partition in self._let_go_of_cancelled(topics):
            self.client.assign(sorted(self.positions))
            self.succession.release((self.options.group_id, partition))
        for topic in sorted(topics):
            absent = self._bound([topic]) - self.positions.keys()
            if absent and not self.closing.is_set():
                self._take_on(topic, absent)

    def ready(self, topics: Collection[str]) -> bool:
        return bool(topics) and self._bound(topics) <= self.positions.keys()

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], timeout: float) -> None:
        self.client.commit(dict(offsets), timeout_ms=int(timeout * 1000))

    def _bound(self, topics: Collection[str]) -> set[TopicPartition]:
        numbers = self.options.partitions or ()
        return {TopicPartition(topic, number) for topic in topics for number in numbers}

    def _take_on(self, topic: str, partitions: Collection[TopicPartition]) -> None:
        existing = self.client.partitions_for_topic(topic)
        if not existing:
            raise UnknownTopicOrPartitionError(f"no broker knows the topic {topic}")
        for partition in sorted(partitions):
            if partition.partition not in existing:
                raise PartitionNotFoundError(
                    f"The topic {topic} has no partition {partition.partition}: it has "
                    f"{len(existing)}, numbered from 0."
                )
            name = f"{topic}-{partition.partition}"
            if not self.succession.claim((self.options.group_id, partition), name):
                self.warn("Waiting for tasks of %s begun over an earlier connection.", name)
                continue
            self.client.assign([*self.client.assignment(), partition])
            self._open(partition)
