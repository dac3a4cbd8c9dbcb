"""Partitions that are bound to this process.

A partition has one owner, held up by two things. The *claim* says who may hand out: a seat that
Kafka keeps for whom it hears of. Who finds another worker in it waits for as long as a dead one
would keep it, then is refused. The *fence* says who may commit: the last owner alone. An owner that
was frozen finds its lease of the seat expired when it wakes, hands out nothing, asks, and ends if
another has taken over; what it still tries to commit is refused.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Collection, Mapping
from typing import Any

from kafka.errors import (
    CoordinatorNotAvailableError,
    FencedInstanceIdError,
    KafkaError,
    ProducerFencedError,
)
from kafka.structs import OffsetAndMetadata, TopicPartition

from ..errors import ConsumerFailedError, NotOwnerError, PartitionNotFoundError
from .base import Committing, Ownership
from .claim import Claim
from .fence import Fence, commit_all
from .presence import Owner, others, owners

__all__ = ("StaticOwnership",)

#: Seconds to fence the owners before.
BEGIN_SECONDS = 10.0
#: Seconds between two looks at who is in the way.
LOOK_EVERY = 0.5
#: Seconds that another owner is given to vanish on top of the session timeout.
PATIENCE = 2.0


class StaticOwnership(Ownership):
    """Owns the partitions that the option `partitions` numbers, of every topic."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        host = socket.gethostname()
        self._me = Owner(self.options.worker_name or host, os.getpid(), host)
        self._claims: dict[TopicPartition, Claim] = {}
        self._fences: dict[TopicPartition, Fence] = {}
        #: Since when somebody is in the way of a partition.
        self._waiting: dict[TopicPartition, float] = {}
        #: When somebody was in the way last.
        self._looked = -math.inf

    def step(self, topics: Collection[str]) -> None:
        for partition in self._let_go_of_cancelled(topics):
            self.client.assign(sorted(self.positions))
            self._claims.pop(partition).leave()
            del self._fences[partition]
            self.succession.release((self.options.group_id, partition))
        for partition in self.positions:
            self._keep(partition)
        self._renew_lease()
        consumed = {partition.topic for partition in self.positions}
        self.absent.keep(consumed | set(topics))
        self._miss(consumed)
        left = {topic: self._bound([topic]) - self.positions.keys() for topic in sorted(topics)}
        new = [topic for topic in left if left[topic] and not self.closing.is_set()]
        for topic, count in self.absent.find(self.client, new).items():
            self._take_on(topic, count, left[topic])
        self._renew_lease()

    def _renew_lease(self) -> None:
        leases = [self._claims[partition].lease.until for partition in self.positions]
        self.inbox.lease(min(leases, default=math.inf))

    def ready(self, topics: Collection[str]) -> bool:
        there = set(topics) - self.absent.names
        return bool(there) and self._bound(there) <= self.positions.keys()

    def begin_commit(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], timeout: float
    ) -> Committing:
        fences = {self._fences[partition]: partition for partition in offsets}
        commits = {fence: offsets[partition] for fence, partition in fences.items()}
        answer = commit_all(commits, timeout)

        def end() -> float:
            failed: Exception | None = None
            for fence, exc in answer.get().items():
                if isinstance(exc, ProducerFencedError):
                    self._fenced(fences[fence])
                failed = failed or exc
            if failed is not None:
                raise failed
            return answer.seconds

        return Committing(offsets, answer.is_there, end)

    def leave(self) -> None:
        super().leave()
        for claim in self._claims.values():
            claim.leave()

    def _bound(self, topics: Collection[str]) -> set[TopicPartition]:
        numbers = self.options.partitions or ()
        return {TopicPartition(topic, number) for topic in topics for number in numbers}

    # Beginning

    def _take_on(self, topic: str, count: int, partitions: Collection[TopicPartition]) -> None:
        for partition in sorted(partitions):
            if partition.partition >= count:
                raise PartitionNotFoundError(
                    f"The topic {topic} has no partition {partition.partition}: it has {count}, "
                    f"numbered from 0."
                )
        ours = set()
        for partition in sorted(partitions):
            if self.succession.claim((self.options.group_id, partition), _name(partition)):
                ours.add(partition)
            else:
                self.warn("Waiting for tasks of %s begun over an earlier connection.",
                          _name(partition))  # fmt: skip
        free = self._free(ours) if ours else set()
        for partition in sorted(free):
            self._claim(partition)
        if free:
            # Both sides announce themselves first and look then: one of them sees the other.
            _, shared = others(self.options, free)
            for fault in map(self._shared, shared, shared.values()):
                raise NotOwnerError(fault)
        for partition in sorted(free):
            self._own(partition)

    def _free(self, partitions: set[TopicPartition]) -> set[TopicPartition]:
        """Return those with nobody in the way; one who is dead is gone after the session timeout.

        Raises:
            NotOwnerError: somebody is there, and lives.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return set()
        owned, shared = others(self.options, partitions)
        faults = {topic: self._shared(topic, workers) for topic, workers in shared.items()}
        free = set()
        for partition in partitions:
            other = owned.get(partition)
            if other is not None and other.name != self._me.name:
                fault: str | None = self._two_owners(partition, other)
            else:
                fault = faults.get(partition.topic)
            if fault is None:
                self._waiting.pop(partition, None)
                free.add(partition)
                continue
            self._looked = time.monotonic()
            since = self._waiting.setdefault(partition, now)
            patience = self.options.session_timeout + PATIENCE
            if now - since > patience:
                raise NotOwnerError(fault)
            self.warn("Waiting, in case it is dead, for at most %g seconds: %s", patience, fault)
        return free

    def _shared(self, topic: str, workers: Collection[str]) -> str:
        return (
            f"Partitions of {topic} are bound to this worker, {self._me}, but workers of the group "
            f"{self.options.group_id} share the partitions of {topic} ({', '.join(workers)}): bind "
            f"all of a topic's workers to partitions, or none."
        )

    def _two_owners(self, partition: TopicPartition, other: object) -> str:
        return (
            f"{_name(partition)} is owned by {other} in the group {self.options.group_id}, so "
            f"{self._me} can't own it too: a partition has one worker; stop one of the two."
        )

    def _claim(self, partition: TopicPartition) -> None:
        claim = self._claims.get(partition)
        if claim is None:
            claim = Claim(self.client, self.options, partition, self._me)
            self._claims[partition] = claim
        try:
            if not claim.take():
                raise CoordinatorNotAvailableError(f"{_name(partition)} can't be claimed")
        except FencedInstanceIdError as exc:
            raise self._lost(partition) from exc

    def _own(self, partition: TopicPartition) -> None:
        fence = Fence(self.client, self.options.group_id, partition)
        fence.begin(BEGIN_SECONDS)
        self._fences[partition] = fence
        self.client.assign([*self.client.assignment(), partition])
        self._open(partition)

    # Owning

    def _keep(self, partition: TopicPartition) -> None:
        """Stay the owner.

        Raises:
            NotOwnerError: another process owns the partition now.
            ConsumerFailedError: nobody does, but another process did for a time.
        """
        claim = self._claims[partition]
        try:
            if claim.keep() or not claim.need_rejoin():
                return
            # The coordinator forgot us: whoever sits there now is another process.
            if owners(self.options, [partition]):
                raise self._lost(partition)
            # Who came after us may have been forgotten too, being late: that one is not driven out.
            self._confirm(partition)
            if not claim.take():
                return
        except FencedInstanceIdError as exc:
            raise self._lost(partition) from exc
        self._confirm(partition)

    def _confirm(self, partition: TopicPartition) -> None:
        """Make sure that nobody has owned the partition since this process began to.

        Raises:
            ConsumerFailedError: somebody has.
        """
        try:
            self._fences[partition].confirm(BEGIN_SECONDS)
        except ProducerFencedError as exc:
            raise ConsumerFailedError(
                f"Another worker has owned {_name(partition)} while this one, {self._me}, was not "
                f"heard of for {self.options.session_timeout:g} seconds: start this process again."
            ) from exc

    def _fenced(self, partition: TopicPartition) -> None:
        """A commit was refused: by another owner, or because a transaction took too long.

        Raises:
            NotOwnerError: it was another owner.
        """
        claim = self._claims[partition]
        try:
            if claim.generation_if_stable() is claim.lease.generation and claim.lease.verify():
                self._fences[partition].begin(BEGIN_SECONDS)
                return
        except FencedInstanceIdError as exc:
            raise self._lost(partition) from exc

    def _lost(self, partition: TopicPartition) -> NotOwnerError:
        other: object = None
        with contextlib.suppress(KafkaError):  # without its name, that it is there is known
            other = owners(self.options, [partition]).get(partition)
        return NotOwnerError(self._two_owners(partition, other or "another worker"))


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}-{partition.partition}"
