"""Which partitions a process owns, and its right to hand out and to commit.

There are two ways to own partitions: :mod:`~kombu_kafka.ownership.static` (they are bound to the
process) and :mod:`~kombu_kafka.ownership.group` (the workers of a group share them). The
consumer's thread calls either through this face.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from ..consuming.inbox import Inbox
from ..consuming.lanes import open_lane
from ..errors import KombuKafkaError
from ..options import Options
from .succession import Succession

__all__ = ("Ownership",)


class Ownership(ABC):
    """Owns partitions of topics for one consumer; used by the consumer's thread alone.

    Arguments:
        options: brokers, group, partitions.
        inbox: where partitions are opened and dropped.
        flush: commits what is done of given partitions now; says whether Kafka has it.
        warn: logs a warning, unless one was logged a moment ago.

    Attributes:
        succession: what this consumer holds of its process's.
        positions: where each partition began that is owned now; replaced, never changed.
        closing: whether nothing new is taken on.
    """

    def __init__(
        self,
        options: Options,
        inbox: Inbox,
        flush: Callable[[Collection[TopicPartition]], bool],
        warn: Callable[..., object],
    ) -> None:
        self.options = options
        self.inbox = inbox
        self.flush = flush
        self.warn = warn
        self.client: KafkaConsumer = None
        self.succession = Succession()
        self.positions: dict[TopicPartition, int] = {}
        self.closing = threading.Event()

    def prepare(self) -> bool:
        """Whether the client may be made by now."""
        return True

    def settings(self) -> dict[str, Any]:
        """Return what the consumer is told besides the settings of every client."""
        return {}

    @abstractmethod
    def step(self, topics: Collection[str]) -> None:
        """Do what is due: take on partitions of `topics`, let go of others.

        Raises:
            NotOwnerError: another process owns them.
            RetriableError: the brokers did not answer; it goes on with the next call.
        """

    def stuck(self) -> bool:
        """Whether nothing more will come of this client, so that a new one is to be made.

        What it owned is dropped then.
        """
        return False

    @abstractmethod
    def ready(self, topics: Collection[str]) -> bool:
        """Whether all that this process owns of `topics` for now is positioned."""

    @abstractmethod
    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], timeout: float) -> None:
        """Commit offsets as the owner.

        Raises:
            NotOwnerError: this process owns the partitions no longer.
            KafkaError: it did not work; it may be tried again.
        """

    def leave(self) -> None:
        """Take nothing on any more; the last commit is done, and the client is closed next."""
        self.closing.set()

    def explain(self, exc: KafkaError) -> KombuKafkaError | None:
        """Return the error that says what `exc` means to an owner, or None."""
        return None

    def _open(self, partition: TopicPartition) -> None:
        position = open_lane(self.client, self.inbox, self.options, partition)
        self.positions = {**self.positions, partition: position}

    def _drop(self, partition: TopicPartition) -> int:
        late = self.inbox.drop(partition)
        self.positions = {tp: at for tp, at in self.positions.items() if tp != partition}
        return late

    def _leaving(self, partition: TopicPartition) -> bool:
        """Whether nothing more of a partition is handed out, since it goes to another owner."""
        return False

    def _let_go_of_cancelled(self, topics: Collection[str]) -> set[TopicPartition]:
        """Hold partitions of topics that nobody consumes; drop those of which nothing is left.

        Returns:
            What was dropped.
        """
        dropped = set()
        for partition in self.positions:
            cancelled = partition.topic not in topics
            self.inbox.hold(partition, cancelled or self._leaving(partition))
            if cancelled and not self.inbox.busy(partition) and self.flush([partition]):
                self._drop(partition)
                dropped.add(partition)
        return dropped
