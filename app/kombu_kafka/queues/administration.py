"""What may be asked of a queue and done to it as a whole: its length, its purge, its end.

A queue's messages are the records of its topics (one, or one for each priority step) that its group
has not done: those from the committed offsets on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    PolicyViolationError,
    RetriableError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.consumer import IsolationLevel, OffsetSpec
from kafka.structs import OffsetAndMetadata, TopicPartition

from ..consuming import commit_metadata
from ..errors import ConfigurationError
from ..options import Options
from ..topics import admin_client, describe

__all__ = ("delete", "ends", "has_members", "length", "make_alike", "purge")

logger = logging.getLogger(__name__)

#: Seconds between two questions to a coordinator that is not there yet.
RETRY_SECONDS = 0.1


def length(options: Options, topics: Iterable[str]) -> int | None:
    """Return how many messages a queue holds: all that are not done.

    Returns:
        None if none of its topics exists.
    """
    with admin_client(options) as admin:
        partitions = _partitions(admin, topics)
        if partitions is None:
            return None
        return _outstanding(admin, options, _offsets(admin, partitions, OffsetSpec.LATEST))


def ends(options: Options, topics: Iterable[str]) -> dict[TopicPartition, int]:
    """Return the offset after the last record that may be consumed of each partition."""
    with admin_client(options) as admin:
        return _offsets(admin, _partitions(admin, topics) or [], OffsetSpec.LATEST)


def purge(options: Options, topics: Iterable[str]) -> int:
    """Delete all messages of a queue that exist now; return how many there were.

    The records are deleted in Kafka, for every group. Moving the group's offsets alone would not do:
    a worker that is running commits its own again. What a worker has already fetched it still runs,
    as it would over AMQP.

    Raises:
        ConfigurationError: the topic does not allow it, or this client may not.
    """
    with admin_client(options) as admin, _refusals("purged"):
        partitions = _partitions(admin, topics)
        if not partitions:
            return 0
        end = _offsets(admin, partitions, OffsetSpec.LATEST)
        count = _outstanding(admin, options, end)
        admin.delete_records(end)
        try:
            # So that the lag is 0 at once where no worker runs. A group that has members moves by
            # itself, and Kafka refuses this.
            admin.alter_group_offsets(
                options.group_id,
                {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in end.items()},
            )
        except KafkaError as exc:
            logger.info("The offsets of %s are left to its members (%s).", options.group_id, exc)
    return count


def delete(options: Options, topics: Iterable[str]) -> None:
    """Delete a queue's topics; one that isn't there is none to delete.

    Raises:
        ConfigurationError: this client may not.
    """
    with admin_client(options) as admin, _refusals("deleted"):
        for topic in topics:
            try:
                admin.delete_topics([topic])
            except UnknownTopicOrPartitionError:
                logger.info("The topic %s is not there to be deleted.", topic)


def has_members(options: Options, topics: Iterable[str]) -> bool:
    """Whether a member of the group has partitions of a queue.

    Workers whose partitions are bound are no members, so they are not seen.
    """
    wanted = set(topics)
    with admin_client(options) as admin:
        group = _patiently(options, admin.describe_groups, [options.group_id])[options.group_id]
    return any(
        topic["topic"] in wanted
        for member in group["members"]
        for topic in ((member.get("member_assignment") or {}).get("assigned_partitions") or ())
    )


def make_alike(options: Options, topic: str, others: Iterable[str]) -> None:
    """Make topics with as many partitions as an existing one, where they are missing.

    Brokers would make them with their default, and a worker that owns partition 7 would find none.
    """
    with admin_client(options) as admin:
        found = {name: count for name, count in describe(admin, [topic, *others]).items() if count}
        missing = [name for name in others if name not in found]
        if topic not in found or not missing:
            return
        wanted = {"num_partitions": found[topic], "replication_factor": -1}
        try:
            admin.create_topics(dict.fromkeys(missing, wanted))
            admin.wait_for_topics(missing)
        except TopicAlreadyExistsError:
            pass  # somebody else made it at the same time
        except KafkaError as exc:
            logger.warning(
                "The topics %s are not there, and can't be made like %s (%s): make them with %d "
                "partitions each.",
                ", ".join(missing), topic, exc, found[topic],
            )  # fmt: skip


def _partitions(admin: KafkaAdminClient, topics: Iterable[str]) -> list[TopicPartition] | None:
    counts = {name: count for name, count in describe(admin, topics).items() if count}
    if not counts:
        return None
    return [TopicPartition(name, number) for name, n in counts.items() for number in range(n)]


def _outstanding(admin: KafkaAdminClient, options: Options, end: dict[TopicPartition, int]) -> int:
    """Count what lies before `end` and is neither done nor deleted."""
    partitions = list(end)
    first = _offsets(admin, partitions, OffsetSpec.EARLIEST)
    group = options.group_id
    committed = _patiently(options, admin.list_group_offsets, {group: partitions})[group]
    count = 0
    for partition in partitions:
        begin, above = first[partition], 0
        if partition in committed:
            begin = max(begin, committed[partition].offset)
            said = commit_metadata.decode(committed[partition].metadata)
            above = sum(map(len, said.done)) if said else 0
        count += max(0, end[partition] - begin - above)
    return count


def _offsets(
    admin: KafkaAdminClient, partitions: list[TopicPartition], spec: OffsetSpec
) -> dict[TopicPartition, int]:
    if not partitions:
        return {}
    found = admin.list_partition_offsets(
        dict.fromkeys(partitions, spec), isolation_level=IsolationLevel.READ_COMMITTED
    )
    return {partition: offset.offset for partition, offset in found.items()}


def _patiently(options: Options, ask: Callable[..., Any], *args: Any) -> Any:
    """Ask a group's coordinator, which a new cluster does not have for its first seconds."""
    deadline = time.monotonic() + options.connect_timeout
    while True:
        try:
            return ask(*args)
        except RetriableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except AuthorizationError as exc:
        raise ConfigurationError(
            f"The queue can't be {what}, since this client may not delete ({type(exc).__name__}): "
            f"grant it the Delete operation on the topic with kafka-acls.sh."
        ) from exc
    except PolicyViolationError as exc:
        raise ConfigurationError(
            f"The queue can't be {what}, since its topic is compacted: set cleanup.policy=delete."
        ) from exc
