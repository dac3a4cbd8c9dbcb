"""Opening the levels: what holds of the group's commits for the delay topic as it is now."""

from __future__ import annotations

import logging
from collections.abc import Collection

from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition

from ..consuming import commit_metadata
from .level import Level

__all__ = ("digest_of", "open_levels", "trusted")

logger = logging.getLogger(__name__)


def open_levels(
    client: KafkaConsumer, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, Level]:
    """Begin the levels that are assigned to `client` where the group's commits say.

    Raises:
        KafkaError: the brokers did not answer.
    """
    first = client.beginning_offsets(list(partitions))
    ends = client.end_offsets(list(partitions))
    levels: dict[TopicPartition, Level] = {}
    for partition in partitions:
        topic = digest_of(client, partition.topic)
        said = client.committed(partition, metadata=True)
        committed, doubt = trusted(said, ends[partition], topic)
        if doubt:
            logger.warning(
                "Of what the dispatchers committed of %s-%d (offset %d), %s: delayed messages may "
                "be forwarded again.", partition.topic, partition.partition, said.offset, doubt,
            )  # fmt: skip
        level = Level(partition.partition, first[partition], committed, topic)
        client.seek(partition, level.position)
        levels[partition] = level
    return levels


def trusted(
    committed: OffsetAndMetadata | None, end: int, topic: str
) -> tuple[OffsetAndMetadata | None, str]:
    """Return what of a commit holds, and what is ignored of it, and why.

    What was committed of a log that was cut short, or of another topic of that name, would have
    new messages taken for forwarded ones.

    Arguments:
        committed: what the group has committed, with its metadata.
        end: where the partition ends.
        topic: digest of the topic's id; empty if it isn't known.
    """
    if committed is None:
        return None, ""
    said = commit_metadata.decode(committed.metadata)
    if said is not None and said.watermark != committed.offset:
        said = None
    if said is not None and topic and said.topic not in ("", topic):
        return None, "nothing holds, as the topic was deleted and made anew since"
    if committed.offset > end:
        return None, f"nothing holds, as the partition ends at {end}: it was cut short"
    if said is not None and said.done and said.done[-1].stop > end:
        return (
            OffsetAndMetadata(committed.offset, "", -1),
            f"what was forwarded above it (up to offset {said.done[-1].stop - 1}) is ignored, as "
            f"the partition ends at {end}: it was cut short",
        )
    return committed, ""


def digest_of(client: KafkaConsumer, topic: str) -> str:
    """Return the digest of a topic's id; empty if the client does not know it."""
    topic_id = client._cluster.topic_id(topic)  # there is no other way to it
    return commit_metadata.digest(topic_id) if topic_id else ""
