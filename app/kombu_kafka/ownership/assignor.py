"""What a member of the group says it owns, and by which generation it knows that."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable
from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import TopicPartition

__all__ = ("Assignor",)


class Assignor(CooperativeStickyAssignor):
    """The cooperative sticky assignor, told by us what this worker owns.

    The client's own memory of it forgets partitions that are still being drained, and remembers
    those of a membership that was lost.

    As Java's does, it tells the group the generation it knows. So a member that joins again never
    says what it said before: a group at rest would take no notice of it.
    """

    def __init__(
        self, owned: Callable[[], Iterable[TopicPartition]], generation: Callable[[], int]
    ) -> None:
        super().__init__()
        self._owned = owned
        self._known_generation = generation

    def metadata(self, topics: Collection[str]) -> Any:
        self.member_assignment = sorted(self._owned())
        said = super().metadata(topics)
        said.user_data = struct.pack(">i", self._known_generation())
        return said
