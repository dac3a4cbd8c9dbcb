"""A partition assignment that gives everything to one member and leaves it there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.structs import TopicPartition

__all__ = ("SingleOwnerAssignor",)


class SingleOwnerAssignor(CooperativeStickyAssignor):
    """All partitions go to the member that owns some already, else to the first by name.

    The others stand by. The protocol is cooperative: while members come and go, the owner keeps
    its partitions and goes on.
    """

    name = "kombu-kafka-single-owner"

    def assign(self, cluster: Any, members: Iterable[Any]) -> dict[str, Any]:
        """Return each member's assignment.

        What another member still says it owns is left out: it gives it up first, and the group
        comes together once more.
        """
        parsed = {
            member.member_id: self.parse_member_metadata(member.metadata) for member in members
        }
        # A member that was away may believe it owns what others have: its generation is older.
        owner = min(
            parsed,
            key=lambda name: (not parsed[name].partitions, -parsed[name].generation, name),
        )
        held = {
            partition
            for name, metadata in parsed.items()
            if name != owner and metadata.generation >= parsed[owner].generation
            for partition in metadata.partitions
        }
        mine: defaultdict[str, list[int]] = defaultdict(list)
        topics = {topic for metadata in parsed.values() for topic in metadata.subscription}
        for topic in topics:
            for number in sorted(cluster.partitions_for_topic(topic) or ()):
                if TopicPartition(topic, number) not in held:
                    mine[topic].append(number)
        return {
            name: ConsumerProtocolAssignment(
                self.version, sorted(mine.items()) if name == owner else [], b""
            )
            for name in parsed
        }
