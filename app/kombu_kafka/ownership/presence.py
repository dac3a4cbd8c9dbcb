"""Who else is there: owners of bound partitions, and workers that share a topic in the group.

Kafka knows both as members of groups. The owner of a partition is the one member of a group of the
partition's own (see :mod:`~kombu_kafka.ownership.claim`); workers that share partitions are members of the
app's group.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import (
    AuthorizationError,
    CoordinatorNotAvailableError,
    KafkaError,
    RetriableError,
)
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription
from kafka.structs import TopicPartition

from ..options import Options

__all__ = ("Owner", "others", "owner_group", "owners", "owners_of_topics", "unassigned")


@dataclass(frozen=True)
class Owner:
    """A process that owns a bound partition.

    Attributes:
        name: the worker's name, which stays the same over restarts.
        process: its process id, on its host.
        host: its host's name.
    """

    name: str
    process: int = 0
    host: str = ""

    def __str__(self) -> str:
        where = f" (process {self.process} on {self.host})" if self.process else ""
        return f"{self.name or 'a worker that is just starting'}{where}"

    def encode(self) -> bytes:
        """Return what a member of the owner's group says of itself."""
        said = json.dumps({"name": self.name, "process": self.process, "host": self.host})
        metadata = ConsumerProtocolSubscription(version=0, topics=[], user_data=said.encode())
        return bytes(metadata.encode())


def owner_group(group_id: str, partition: TopicPartition) -> str:
    """Return the group whose member owns a partition in the name of the group `group_id`."""
    return f"{group_id}.owner.{partition.topic}.{partition.partition}"


def owners(options: Options, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Owner]:
    """Return who owns each of `partitions`; those without an owner are left out.

    Raises:
        RetriableError: the brokers did not answer.
    """
    return others(options, partitions)[0]


def others(
    options: Options, partitions: Collection[TopicPartition]
) -> tuple[dict[TopicPartition, Owner], dict[str, list[str]]]:
    """Return who owns each of `partitions`, and which workers share their topics.

    Raises:
        RetriableError: the brokers did not answer.
    """
    groups = {owner_group(options.group_id, partition): partition for partition in partitions}
    with _admin(options) as admin:
        described = admin.describe_groups([*groups, options.group_id])
    group = described.pop(options.group_id)
    owned = {
        groups[name]: _owner(found["members"][0])
        for name, found in described.items()
        if found["members"]
    }
    topics = {partition.topic for partition in partitions}
    shared = {topic: _consuming(group, topic) for topic in topics}
    return owned, {topic: workers for topic, workers in shared.items() if workers}


def owners_of_topics(options: Options, topics: Collection[str]) -> dict[str, Owner]:
    """Return who owns a partition of any of `topics`, by the partitions' names.

    Raises:
        RetriableError: the brokers did not answer.
    """
    prefixes = {f"{options.group_id}.owner.{topic}.": topic for topic in topics}
    found: dict[str, str] = {}
    with _admin(options) as admin:
        for group in admin.list_groups():
            prefix, _, number = group["group_id"].rpartition(".")
            if f"{prefix}." in prefixes:
                found[group["group_id"]] = f"{prefixes[f'{prefix}.']}-{number}"
        described = admin.describe_groups(list(found)) if found else {}
    return {
        found[name]: _owner(group["members"][0])
        for name, group in described.items()
        if group["members"]
    }


def unassigned(
    options: Options, partitions: Collection[TopicPartition]
) -> Collection[TopicPartition]:
    """Return which of `partitions` the group, at rest, has given to none of its members.

    While the group rebalances there are none to tell of: each is dealt out at its end.

    Raises:
        RetriableError: the brokers did not answer.
    """
    with _admin(options) as admin:
        group = admin.describe_groups([options.group_id])[options.group_id]
    if group["group_state"] != "Stable":
        return set()
    assigned = {
        TopicPartition(topic["topic"], number)
        for member in group["members"]
        for topic in (member["member_assignment"] or {}).get("assigned_partitions") or ()
        for number in topic["partitions"]
    }
    return set(partitions) - assigned


def _consuming(group: dict[str, Any], topic: str) -> list[str]:
    """Return the names of the members of a group that consume a topic.

    While the group rebalances Kafka does not tell who consumes what: then all members count.
    """
    names = []
    for member in group["members"]:
        subscription = _subscription(member)
        if subscription is None or topic in (subscription.get("topics") or ()):
            names.append(member["group_instance_id"] or member["client_id"])
    return sorted(names)


@contextmanager
def _admin(options: Options) -> Iterator[Any]:
    try:
        admin = KafkaAdminClient(**options.client_settings())
        try:
            yield admin
        finally:
            admin.close()
    except (AuthorizationError, RetriableError):
        raise
    except KafkaError as exc:
        raise CoordinatorNotAvailableError(f"no answer to who owns what ({exc})") from exc


def _subscription(member: dict[str, Any]) -> dict[str, Any] | None:
    found = member["member_metadata"]
    return found if isinstance(found, dict) else None


def _owner(member: dict[str, Any]) -> Owner:
    subscription = _subscription(member)
    try:
        said = subscription["user_data"] if subscription else ""
        return Owner(**json.loads(said))
    except (TypeError, ValueError, KeyError):
        return Owner("")
