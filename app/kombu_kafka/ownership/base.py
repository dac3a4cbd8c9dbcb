"""Which partitions a process owns, and its right to hand out and to commit.

There are two ways to own partitions: :mod:`~kombu_kafka.ownership.static` (they are bound to the
process) and :mod:`~kombu_kafka.ownership.group` (the workers of a group share them). The
consumer's thread calls either through this face.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from ..clients.fetching import forget
from ..consuming.inbox import Inbox
from ..consuming.lanes import is_made_anew, open_lane, pass_over_deleted
from ..errors import KombuKafkaError
from ..options import Options
from ..wording import counted
from .absent import AbsentTopics
from .succession import Succession

__all__ = ("Committing", "Ownership")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Committing:
    """A commit that was begun.

    Attributes:
        offsets: what is committed.
        is_ready: whether `end` would not have to wait for Kafka's answer.
        end: ends it, and returns the seconds that it took. Raises NotOwnerError if this process owns
            the partitions no longer, KafkaError if it did not work; it may be tried again.
    """

    offsets: Mapping[TopicPartition, OffsetAndMetadata]
    is_ready: Callable[[], bool]
    end: Callable[[], float]


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
        absent: the topics that are not there.
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
        self.absent = AbsentTopics()
        #: Partitions to be opened anew, and until when what runs of them is waited for.
        self._anew: dict[TopicPartition, float] = {}

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

    def renew(self) -> None:
        """Open partitions anew whose topic was deleted and made again, once what runs is done.

        Their offsets name other records now: nothing more is handed out or committed of the old.
        """
        for partition in self.positions.keys() - self._anew.keys():
            if is_made_anew(self.client, self.inbox, partition):
                self._begin_anew(partition)
        for partition, deadline in tuple(self._anew.items()):
            if self.inbox.busy(partition) and time.monotonic() < deadline:
                continue
            del self._anew[partition]
            if partition not in self.positions:
                continue  # it went to another owner, who opens it anew
            forget(self.client, partition)
            late = self._reopen(partition)
            if late:
                logger.warning(
                    "%s of the topic %s, which was deleted, still ran after %g seconds: nothing "
                    "waits for that any more.",
                    counted(late, "message"), partition.topic, self.options.revoke_timeout,
                )  # fmt: skip

    def out_of_range(self, partitions: Iterable[TopicPartition]) -> None:
        """Kafka does not have what was to be read next of these: go on with what there is.

        Raises:
            RetriableError: the brokers did not answer.
        """
        for partition in partitions:
            if not pass_over_deleted(self.client, self.inbox, partition):
                self._begin_anew(partition)

    def cut_short(self, partitions: Iterable[TopicPartition]) -> None:
        """Of these Kafka has lost what was read last: go on where the log was cut."""
        for partition in partitions:
            self._begin_anew(partition)

    def _begin_anew(self, partition: TopicPartition) -> None:
        if partition in self._anew:
            return
        logger.warning(
            "%s-%d holds other records than those read so far: its topic was deleted and made anew, "
            "or brokers that had all of it were lost. Reading begins anew.", *partition,
        )  # fmt: skip
        self.inbox.discard(partition)
        self._anew[partition] = time.monotonic() + self.options.revoke_timeout

    def _reopen(self, partition: TopicPartition) -> int:
        """Drop a partition, to open it with the next step; return how many were in flight."""
        return self._drop(partition)

    def stuck(self) -> bool:
        """Whether nothing more will come of this client, so that a new one is to be made.

        What it owned is dropped then.
        """
        return False

    @abstractmethod
    def ready(self, topics: Collection[str]) -> bool:
        """Whether all that this process owns of `topics` for now is positioned.

        What is missing of them counts for nothing; where all are missing, nothing is ready.
        """

    @abstractmethod
    def begin_commit(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], timeout: float
    ) -> Committing:
        """Begin to commit offsets as the owner, beside reading where that is possible.

        Until it has ended, nothing else is asked of the owner.
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
        """Whether nothing more of a partition is handed out, since it goes to another owner or ends."""
        return partition in self._anew

    def _miss(self, topics: Collection[str]) -> None:
        """Say of topics that are consumed if they were deleted; their partitions stay, for now."""
        known = self.client._cluster.partitions_for_topic
        gone = [topic for topic in topics if known(topic) is None]
        # The client may learn of one before it is looked for here again.
        self.absent.seen(set(topics).difference(gone))
        if gone:
            self.absent.find(self.client, gone)

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
