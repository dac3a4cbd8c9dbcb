"""What consumer groups have left to do, from offsets alone: no client, no clock of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kafka.structs import OffsetAndMetadata, TopicPartition

from kombu_kafka.consuming.commit_metadata import decode

__all__ = ["GroupOffsets", "LagTracker", "Offsets", "Pair", "PartitionLag", "Snapshot"]

#: Seconds over which the rate of progress is measured.
RATE_SECONDS = 300.0
#: Seconds for which a name under which a partition was committed counts as an owner.
OWNER_SECONDS = 60.0
#: Commits whose metadata is remembered decoded.
MAX_DECODED = 100_000


class Pair(NamedTuple):
    """A partition as one group sees it."""

    group: str
    topic: str
    partition: int


class PartitionLag(NamedTuple):
    """How far a group is in a partition."""

    committed: int | None
    lag: int
    owners: tuple[str, ...] = ()
    distance: int | None = None
    unfinished: int | None = None


@dataclass
class GroupOffsets:
    """What Kafka says of one group.

    Attributes:
        committed: what it has committed.
        assigned: the client that each partition is assigned to, where the group has members.
        members: how many members it has.
    """

    committed: Mapping[TopicPartition, OffsetAndMetadata]
    assigned: Mapping[TopicPartition, str] = field(default_factory=dict)
    members: int = 0


@dataclass
class Offsets:
    """What one look at Kafka found.

    Attributes:
        groups: the groups, by name.
        begins: offset of each partition's first record.
        ends: offset after each partition's last record, asked for after the commits.
    """

    groups: Mapping[str, GroupOffsets]
    begins: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]


@dataclass
class Snapshot:
    """What can be shown.

    Attributes:
        lags: each partition of each group.
        drain: seconds until a group is through with a topic, by group and topic.
        up: whether Kafka knows each group still.
        members: of each group.
        offsets: what it was made from.
        omitted: partitions of groups that were too many to show.
    """

    lags: dict[Pair, PartitionLag]
    drain: dict[tuple[str, str], float]
    up: dict[str, bool]
    members: dict[str, int]
    offsets: Offsets
    omitted: int = 0

    def length(self, group: str, topic: str) -> int:
        """Return the lag of all partitions of a topic."""
        return sum(
            lag.lag
            for pair, lag in self.lags.items()
            if pair.group == group and pair.topic == topic
        )


class LagTracker:
    """Turns looks at Kafka into snapshots; remembers groups that vanished and rates of progress.

    Arguments:
        first: the groups and topics that are shown even before anything is committed, and that
            are never left out.
        expire: seconds for which a vanished group is shown.
        limit: partitions of groups that are shown at most.
    """

    def __init__(
        self, first: Iterable[tuple[str, str]] = (), expire: float = 600.0, limit: int = 100_000
    ) -> None:
        self._first = tuple(first)
        self._expire = expire
        self._limit = limit
        self._seen: dict[str, tuple[float, GroupOffsets]] = {}
        self._progress: dict[tuple[str, str], deque[tuple[float, int]]] = {}
        self._commits: dict[Pair, dict[str, tuple[float, OffsetAndMetadata]]] = {}
        self._decoded: dict[tuple[str, int], tuple[str, int | None, int | None]] = {}

    def update(self, offsets: Offsets, now: float) -> Snapshot:
        """Take a look's findings; return what can be shown now.

        Arguments:
            offsets: what was found.
            now: monotonic time in seconds.
        """
        for group, found in offsets.groups.items():
            if found.committed or found.members or group not in self._seen:
                self._seen[group] = (now, found)
        self._seen = {
            group: seen for group, seen in self._seen.items() if now - seen[0] < self._expire
        }
        for group, _ in self._first:
            self._seen.setdefault(group, (now, GroupOffsets({})))
        numbers: dict[str, list[int]] = {}
        for partition in offsets.ends:
            numbers.setdefault(partition.topic, []).append(partition.partition)
        snapshot = Snapshot({}, {}, {}, {}, offsets)
        favoured = {group for group, _ in self._first}
        for group in sorted(self._seen, key=lambda name: (name not in favoured, name)):
            at, found = self._seen[group]
            snapshot.up[group] = at == now and group in offsets.groups
            snapshot.members[group] = found.members if snapshot.up[group] else 0
            topics = {partition.topic for partition in found.committed}
            topics |= {partition.topic for partition in found.assigned}
            topics |= {topic for name, topic in self._first if name == group}
            for topic in sorted(topics):
                self._add(snapshot, group, found, topic, numbers.get(topic, ()), now)
        shown = {(pair.group, pair.topic) for pair in snapshot.lags}
        self._progress = {key: seen for key, seen in self._progress.items() if key in shown}
        self._commits = {
            pair: seen for pair, seen in self._commits.items() if pair in snapshot.lags
        }
        return snapshot

    def _add(
        self,
        snapshot: Snapshot,
        group: str,
        found: GroupOffsets,
        topic: str,
        numbers: Iterable[int],
        now: float,
    ) -> None:
        total = done = 0
        for number in numbers:
            if len(snapshot.lags) >= self._limit:
                snapshot.omitted += 1
                continue
            partition = TopicPartition(topic, number)
            pair = Pair(group, topic, number)
            commit = found.committed.get(partition)
            committed = commit.offset if commit is not None and commit.offset >= 0 else None
            since = snapshot.offsets.begins.get(partition, 0) if committed is None else committed
            # A commit may be newer than the end that was read before it reached this reader.
            lag = max(0, snapshot.offsets.ends[partition] - since)
            owner, distance, unfinished = (
                self._told(commit) if commit is not None else ("", None, None)
            )
            owners = self._owners(pair, owner, commit, now)
            assigned = found.assigned.get(partition)
            if assigned is not None and not owner:
                owners = (assigned,)
            snapshot.lags[pair] = PartitionLag(committed, lag, owners, distance, unfinished)
            total += lag
            done += since
        snapshot.drain[group, topic] = self._drain((group, topic), total, done, now)

    def _told(self, commit: OffsetAndMetadata) -> tuple[str, int | None, int | None]:
        """Return owner, watermark distance and unfinished records, as a commit's metadata says."""
        if not commit.metadata:
            return "", None, None
        key = (commit.metadata, commit.offset)
        if key not in self._decoded:
            if len(self._decoded) >= MAX_DECODED:
                self._decoded.clear()
            said = decode(commit.metadata)
            if said is None or said.watermark != commit.offset:
                self._decoded[key] = ("", None, None)
            else:
                distance = said.done[-1].stop - said.watermark if said.done else 0
                unfinished = distance - sum(len(part) for part in said.done)
                self._decoded[key] = (said.owner, distance, unfinished)
        return self._decoded[key]

    def _owners(
        self, pair: Pair, owner: str, commit: OffsetAndMetadata | None, now: float
    ) -> tuple[str, ...]:
        """Return the names of the last commit, and of those that were committed just before it."""
        if commit is None or not owner:
            return ()
        names = self._commits.setdefault(pair, {})
        last = names.get(owner)
        if last is None or last[1] != commit:
            names[owner] = (now, commit)
        for name in [name for name in names if name != owner]:
            if now - names[name][0] > OWNER_SECONDS:
                del names[name]
        return tuple(sorted(names))

    def _drain(self, key: tuple[str, str], lag: int, done: int, now: float) -> float:
        seen = self._progress.setdefault(key, deque())
        if seen and done < seen[-1][1]:
            seen.clear()  # offsets were reset, or the topic made anew
        seen.append((now, done))
        while seen[0][0] < now - RATE_SECONDS:
            seen.popleft()
        if not lag:
            return 0.0
        moved, took = done - seen[0][1], now - seen[0][0]
        return lag * took / moved if moved and took else float("inf")
