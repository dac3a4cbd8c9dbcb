"""Partitions that the workers of a consumer group share.

Kafka's group protocol deals the partitions out, cooperatively: a rebalance takes a partition from
one worker and gives it to another, and the rest goes on. What this module adds to the client:

- A partition that is taken away is *drained*: nothing more of it is handed out, what runs may
  finish, its offset is committed, and only then is it given up. Until then this worker names it
  among those it owns, so the group gives it to nobody else.
- A *lease*: nothing is handed out unless the group's coordinator confirmed this worker's
  membership within the session timeout. A process that was frozen for longer finds its lease
  expired, and asks first.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kafka import ConsumerRebalanceListener
from kafka.errors import (
    FencedInstanceIdError,
    InconsistentGroupProtocolError,
    KafkaError,
    RebalanceInProgressError,
)
from kafka.structs import OffsetAndMetadata, TopicPartition

from ..clients.fetching import refresh
from ..errors import ConfigurationError, KombuKafkaError, NotOwnerError
from ..wording import counted
from .assignor import Assignor
from .base import Committing, Ownership
from .bound_workers import BoundWorkers
from .lease import Lease
from .presence import unassigned
from .standstill import Standstill

__all__ = ("GroupOwnership", "instance_id")

logger = logging.getLogger(__name__)

#: Milliseconds after which a topic's partitions are looked up again: new ones are dealt out then.
METADATA_MAX_AGE_MS = 30_000
#: Seconds a partition's last commit may take after `revoke_timeout`.
LAST_COMMIT_SECONDS = 5.0
#: Longest group instance id that Kafka takes.
MAX_INSTANCE_ID = 249


def instance_id(worker_name: str | None) -> str | None:
    """Return the group instance id of a worker: its name, in the characters that Kafka allows."""
    if worker_name is None:
        return None
    return re.sub(r"[^A-Za-z0-9._-]", "-", worker_name)[:MAX_INSTANCE_ID]


class GroupOwnership(Ownership, ConsumerRebalanceListener):
    """Owns what the group deals out to this worker."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._instance_id = instance_id(self.options.worker_name)
        #: The client's I/O thread calls the listener's methods.
        self._lock = threading.Lock()
        self._assigned: set[TopicPartition] = set()
        self._draining: dict[TopicPartition, float] = {}
        self._lost: dict[TopicPartition, int] = {}
        self._subscribed: frozenset[str] = frozenset()
        #: What the group was told last that this worker owns.
        self._told: set[TopicPartition] = set()
        self._bound = BoundWorkers(self.options, self.warn)
        self._standstill = Standstill(self.options)
        #: Whether this client's first assignment is yet to be looked at.
        self._is_new = True
        #: Of the client's membership, once it was asked about.
        self._known_lease: Lease | None = None

    def prepare(self) -> bool:
        if self._instance_id is None:
            return True
        what = (self.options.group_id, self._instance_id)
        if self.succession.claim(what, f"the group {self.options.group_id}"):
            return True
        self.warn("Waiting for tasks begun over an earlier connection.")
        return False

    def settings(self) -> dict[str, Any]:
        self._is_new = True
        session = int(self.options.session_timeout * 1000)
        return {
            "group_instance_id": self._instance_id,
            "partition_assignment_strategy": [Assignor(self._owned, self._generation)],
            "session_timeout_ms": session,
            "heartbeat_interval_ms": min(3000, session // 3),
            "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        }

    @property
    def _lease(self) -> Lease:
        if self._known_lease is None:
            self._known_lease = Lease(self.client._coordinator, self.options.session_timeout)
        return self._known_lease

    def step(self, topics: Collection[str]) -> None:
        self._verify()
        self._subscribe(frozenset(topics))
        self._report_lost()
        self._drain()
        if not self.closing.is_set():
            self._take_on()

    def stuck(self) -> bool:
        if not self._subscribed:
            self._standstill.reset()
            return False
        waited = self._standstill.seconds(self.client._coordinator)
        if not waited:
            return False
        self.on_partitions_lost(())
        with self._lock:
            lost, self._lost = self._lost, {}
        self._subscribed = frozenset()
        self._known_lease = None
        logger.warning(
            "The group %s gave this worker no partitions for %g seconds although Kafka answers: "
            "it joins anew, with a new client, and what was in flight runs again (%s).",
            self.options.group_id, round(waited, 1), counted(sum(lost.values()), "message"),
        )  # fmt: skip
        return True

    def ready(self, topics: Collection[str]) -> bool:
        lease = self._known_lease
        return (
            lease is not None
            and lease.generation is not None
            and not self._assigned
            and self._subscribed >= set(topics) - self.absent.names
        )

    def begin_commit(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], timeout: float
    ) -> Committing:
        def end() -> float:
            begun = time.monotonic()
            if not self.client._coordinator.stable():
                raise RebalanceInProgressError("the group is rebalancing")
            try:
                self.client.commit(dict(offsets), timeout_ms=int(timeout * 1000))
            except FencedInstanceIdError as exc:
                raise self._fenced() from exc
            return time.monotonic() - begun

        return Committing(offsets, lambda: True, end)

    def explain(self, exc: KafkaError) -> KombuKafkaError | None:
        if isinstance(exc, FencedInstanceIdError):
            return self._fenced()
        if isinstance(exc, InconsistentGroupProtocolError):
            return ConfigurationError(
                f"The consumer group {self.options.group_id} has members that deal partitions out "
                f"in another way: give this app a group_id of its own, or stop them."
            )
        return None

    # Topics

    def _subscribe(self, topics: frozenset[str]) -> None:
        self._let_go_of_cancelled(topics)
        wanted = topics | {partition.topic for partition in self.positions}
        self.absent.keep(wanted)
        self._miss(wanted & self._subscribed)
        new = wanted - self._subscribed
        if new:
            there = self.absent.find(self.client, new).keys()
            wanted -= new - there
            new = new & there
        if new and not self._bound.gone(new):
            wanted -= new
        if wanted == self._subscribed:
            return
        if wanted:
            self._bound.announce(wanted - self._subscribed)
            self.client.subscribe(topics=sorted(wanted), listener=self)
            self._look_up(wanted)
        else:
            self.client.unsubscribe()
            self._lease.generation = None
        self._subscribed = wanted

    def _look_up(self, topics: Collection[str]) -> None:
        """Have the client know the topics' partitions before it joins.

        A leader that does not know them deals out none, and calls the group together once more.
        """
        cluster = self.client._cluster
        for _ in range(2):  # an answer may be under way that was asked for before
            if all(cluster.partitions_for_topic(topic) for topic in topics):
                break
            refresh(self.client)

    # What the group says; called within `KafkaConsumer.poll`, by the client's I/O thread

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take note; nothing is fetched before the partition is opened."""
        with self._lock:
            for partition in assigned:
                self.client._subscription.pause(partition)
                self._assigned.add(partition)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Hand out nothing more of them."""
        deadline = time.monotonic() + self.options.revoke_timeout
        with self._lock:
            for partition in revoked:
                self._assigned.discard(partition)
                if partition in self.positions:
                    self.inbox.hold(partition)
                    self._draining.setdefault(partition, deadline)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Forget all at once, without a commit: others may own them already."""
        with self._lock:
            self._assigned.clear()
            self._draining.clear()
            for partition in self.inbox.partitions():
                self._lost[partition] = self._drop(partition)

    def _owned(self) -> set[TopicPartition]:
        """Return what this worker tells the group that it owns, when it joins."""
        with self._lock:
            lost = self.client._coordinator._generation.is_lost()
            self._told = set() if lost else self.inbox.partitions() | self._assigned
            return self._told

    def _generation(self) -> int:
        return self.client._coordinator._generation.generation_id  # type: ignore[no-any-return]

    # Duties

    def _report_lost(self) -> None:
        with self._lock:
            lost, self._lost = self._lost, {}
        if lost:
            logger.warning(
                "The group %s had no sign of life of this worker for %g seconds and gave its "
                "partitions to others: what was in flight runs again there (%s of %s).",
                self.options.group_id, self.options.session_timeout,
                counted(sum(lost.values()), "message"), _names(lost),
            )  # fmt: skip

    def _drain(self) -> None:
        """Give up partitions that were taken away, once what runs of them is finished."""
        with self._lock:
            draining = dict(self._draining)
        for partition, deadline in draining.items():
            over = time.monotonic() - deadline
            if self.inbox.busy(partition) and over < 0:
                continue
            if not self.flush([partition]) and over < LAST_COMMIT_SECONDS:
                continue
            with self._lock:
                if self._draining.pop(partition, None) is None:
                    continue  # lost meanwhile
                late = self._drop(partition)
            if late:
                logger.warning(
                    "%s of %s still ran %g seconds after the group %s gave it to another worker, "
                    "and will run again there.",
                    counted(late, "message"), _names([partition]), self.options.revoke_timeout,
                    self.options.group_id,
                )  # fmt: skip
            else:
                logger.info("%s goes to another worker.", _names([partition]))
        coordinator = self.client._coordinator
        # A request made while the group rebalances would be forgotten, so it is repeated.
        if coordinator.stable() and self._told - self.inbox.partitions() - self._assigned:
            coordinator.request_rejoin()

    def _leaving(self, partition: TopicPartition) -> bool:
        with self._lock:
            return partition in self._draining or super()._leaving(partition)

    def _reopen(self, partition: TopicPartition) -> int:
        with self._lock:
            if partition not in self.positions:
                return 0  # lost meanwhile
            self._assigned.add(partition)
            return self._drop(partition)

    def _take_on(self) -> None:
        """Open what was assigned."""
        with self._lock:
            assigned = self._assigned - self._draining.keys()
        for partition in sorted(assigned):
            try:
                self._open(partition)
            except ValueError:
                if partition in self.client.assignment():
                    raise
                # The group took it away again while it was looked up.
            with self._lock:
                self._assigned.discard(partition)

    def _verify(self) -> None:
        """Renew the lease; in a new membership, look whether partitions are bound to others."""
        try:
            renewed = self._lease.renew()
        except FencedInstanceIdError as exc:
            raise self._fenced() from exc
        if renewed:
            self._bound.check(self.client._coordinator._joined_subscription)
        self.inbox.lease(self._lease.until)
        if renewed and self._is_new:
            self._resume_rebalance()
            self._is_new = False

    def _resume_rebalance(self) -> None:
        """End a rebalance that this worker left halfway when it was killed.

        One that gives partitions up joins once more, and only then they are dealt out. Killed in
        between, it comes back under its name to a group at rest, and nobody has them.
        """
        if self._instance_id is None:
            return
        cluster = self.client._cluster
        partitions = {
            TopicPartition(topic, number)
            for topic in self._subscribed
            for number in cluster.partitions_for_topic(topic) or ()
        }
        nobodys = unassigned(self.options, partitions)
        if nobodys:
            logger.info("The group %s is called together: nobody has %s.",
                        self.options.group_id, _names(nobodys))  # fmt: skip
            self.client._coordinator.request_rejoin()

    def _fenced(self) -> NotOwnerError:
        return NotOwnerError(
            f"Another worker joined the group {self.options.group_id} under this worker's name, "
            f"{self.options.worker_name}: names of workers must differ; stop one of the two."
        )


def _names(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(sorted(f"{tp.topic}-{tp.partition}" for tp in partitions))
