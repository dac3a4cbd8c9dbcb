"""The thread that looks at Kafka: groups, offsets, times, in few requests."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from kafka import KafkaAdminClient
from kafka.protocol.consumer import OffsetSpec
from kafka.structs import TopicPartition

from kombu_kafka.clients.handshake import reaching
from kombu_kafka.errors import KombuKafkaError
from kombu_kafka.options import Options
from scheduler.exporter.lag import GroupOffsets, LagTracker, Offsets, Snapshot
from scheduler.exporter.record_times import Place, RecordTimes

__all__ = ["Collector", "View"]

logger = logging.getLogger(__name__)

#: Seconds without an answer after which Kafka counts as gone.
ANSWER_SECONDS = 10.0
#: Seconds between two warnings about the same trouble.
WARN_EVERY = 60.0


@dataclass(frozen=True)
class View:
    """What was seen at the last look that worked.

    Attributes:
        snapshot: offsets and lag.
        oldest: when the record at a partition's committed offset, or first offset, was written.
        at: when the look ended, seconds since the epoch.
        took: how long it took, in seconds.
    """

    snapshot: Snapshot
    oldest: Mapping[Place, float]
    at: float
    took: float


class Collector:
    """Looks at Kafka every few seconds, in a thread of its own, and survives losing it.

    Arguments:
        options: brokers, the workers' group and their dead letter topic.
        topic: the workers' queue.
        groups: patterns of the groups that are looked at (`*` and `?`).
        show: called with each new view.
        interval: seconds from one look to the next.
        expire: seconds for which a vanished group is shown.
    """

    def __init__(
        self,
        options: Options,
        topic: str,
        *,
        groups: Iterable[str] = ("*",),
        show: Callable[[View], object],
        interval: float = 10.0,
        expire: float = 600.0,
    ) -> None:
        answer = min(options.connect_timeout, ANSWER_SECONDS)
        self._options = replace(options, connect_timeout=answer)
        self._own = (options.group_id, topic)
        self._topics = {topic, options.dead_letter_topic}
        self._groups = tuple(groups)
        self._show = show
        self._interval = interval
        self._tracker = LagTracker([self._own], expire=expire)
        self._times = RecordTimes(self._options)
        self._admin: KafkaAdminClient | None = None
        self._stop = threading.Event()
        self._last_warning = -WARN_EVERY
        self._thread = threading.Thread(target=self._run, name="exporter-kafka", daemon=True)
        #: Whether the last look worked.
        self.up = False
        #: Looks that failed.
        self.failures = 0

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(ANSWER_SECONDS)

    def refresh(self) -> View:
        """Look at Kafka now.

        Raises:
            KafkaError: it did not answer, or refused.
        """
        started = time.monotonic()
        offsets = self._offsets()
        now = time.monotonic()
        snapshot = self._tracker.update(offsets, now)
        places = self._places(snapshot)
        self._times.look_up(places)
        oldest = {place: at for place in places if (at := self._times.known(place)) is not None}
        return View(snapshot, oldest, time.time(), time.monotonic() - started)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                with reaching(self._options):
                    view = self.refresh()
            except Exception as exc:  # noqa: BLE001 (whatever it was, the next look may work)
                self._failed(exc)
            else:
                if not self.up:
                    logger.info("Kafka answers: %d groups.", len(view.snapshot.up))
                self.up = True
                self._show(view)
            self._stop.wait(max(0.5, self._interval - (time.monotonic() - began)))
        self._close()

    def _failed(self, exc: Exception) -> None:
        self.up = False
        self.failures += 1
        # A new client finds coordinators and leaders that have moved.
        self._close()
        now = time.monotonic()
        if now - self._last_warning < WARN_EVERY:
            return
        self._last_warning = now
        if isinstance(exc, KombuKafkaError):
            logger.warning("%s It is tried again.", exc)
        else:
            where = ", ".join(self._options.hosts)
            logger.exception("Looking at Kafka at %s failed; trying again.", where)

    def _close(self) -> None:
        admin, self._admin = self._admin, None
        for close in (admin and admin.close, self._times.close):
            with contextlib.suppress(Exception):
                if close:
                    close()

    def _offsets(self) -> Offsets:
        """Ask for commits first, then for the partitions' ends: so a lag is not below 0."""
        if self._admin is None:
            self._admin = KafkaAdminClient(**self._options.client_settings())
        admin = self._admin
        names = [found["group_id"] for found in admin.list_groups()]
        wanted = [name for name in names if self._wanted(name)]
        committed = admin.list_group_offsets(dict.fromkeys(wanted)) if wanted else {}
        described = admin.describe_groups(wanted) if wanted else {}
        groups = {name: _group(committed.get(name, {}), described.get(name, {})) for name in wanted}
        topics = {tp.topic for found in groups.values() for tp in found.committed} | self._topics
        partitions = [
            TopicPartition(topic["name"], part["partition_index"])
            for topic in admin.describe_topics()
            if topic["name"] in topics
            for part in topic["partitions"]
            if part["leader_id"] >= 0  # one that is offline must not hide the others
        ]
        if not partitions:
            return Offsets(groups, {}, {})
        ends = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        begins = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST))
        return Offsets(
            groups,
            {partition: found.offset for partition, found in begins.items()},
            {partition: found.offset for partition, found in ends.items()},
        )

    def _wanted(self, group: str) -> bool:
        return group == self._own[0] or any(fnmatchcase(group, each) for each in self._groups)

    def _places(self, snapshot: Snapshot) -> list[Place]:
        """Return whose times are wanted: of what each group does next."""
        begins, places = snapshot.offsets.begins, []
        for pair, lag in snapshot.lags.items():
            if lag.lag:
                partition = TopicPartition(pair.topic, pair.partition)
                # Records below the first are gone: the oldest that is left is the one to wait for.
                offset = max(lag.committed or 0, begins.get(partition, 0))
                places.append(Place(partition, offset))
        return places


def _group(committed: Mapping[TopicPartition, Any], described: Mapping[str, Any]) -> GroupOffsets:
    assigned: dict[TopicPartition, str] = {}
    members = described.get("members") or []
    for member in members:
        name = member.get("group_instance_id") or f"{member['client_id']}{member['client_host']}"
        assignment = member.get("member_assignment")
        if isinstance(assignment, Mapping):
            for topic in assignment.get("assigned_partitions") or ():
                for number in topic["partitions"]:
                    assigned[TopicPartition(topic["topic"], number)] = name
    return GroupOffsets(committed, assigned, len(members))
