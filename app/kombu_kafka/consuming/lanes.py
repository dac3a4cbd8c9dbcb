"""Opening a partition: where to begin, and what is known of it already.

Also what to do where Kafka no longer has what was to be read next.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition

from ..clients.fetching import end_of_epoch, refresh
from ..options import Options
from ..order import make_order
from ..wording import counted
from . import attempts, commit_metadata
from .commit_metadata import CommitMetadata
from .inbox import Inbox
from .journal import Journal, JournalIdentity
from .ranges import below, within

__all__ = ("is_made_anew", "open_lane", "pass_over_deleted")

logger = logging.getLogger(__name__)


def open_lane(
    client: KafkaConsumer, inbox: Inbox, options: Options, partition: TopicPartition
) -> int:
    """Begin a partition that is assigned to `client` where the group's commit says.

    A partition without a commit begins at its first record, so that nothing queued before the
    first worker is passed over. What Kafka's metadata or the journal know as done is skipped.

    Returns:
        The offset it begins at.

    Raises:
        RetriableError: the brokers did not answer.
    """
    committed = client.committed(partition, metadata=True)
    first: int = client.beginning_offsets([partition])[partition]
    end = client.end_offsets([partition])[partition]
    topic_id = client._cluster.topic_id(partition.topic)  # there is no other way to it
    said = _said(partition, committed)
    journal = _journal(client, options, partition, topic_id, committed, said)
    anew = said is not None and said.topic not in ("", commit_metadata.digest(topic_id))
    offset = committed.offset if committed else journal.told if journal else None
    position, lost = first, 0
    epoch = committed.leader_epoch if committed and not anew else -1
    cut = end_of_epoch(client, partition, epoch) if epoch >= 0 else None
    if cut is None:
        epoch = -1
    else:
        offset, said = _before(cut, partition, committed, said, journal)
    if offset is not None and (anew or offset > end):
        logger.warning(
            "The group %s committed offset %d of %s-%d, %s: starting at its first record, "
            "offset %d.", options.group_id, offset, partition.topic, partition.partition,
            "a topic that was deleted and made anew since" if anew else
            f"which ends at {end}: the topic was made anew or cut short", first,
        )  # fmt: skip
        said = None
    elif offset is not None:
        position = max(offset, first)
        if offset < first:
            epoch = -1
            gone = range(offset, first)
            done, at_hand = said.done if said else (), journal.done if journal else {}
            lost = sum(not within(done, offset) and offset not in at_hand for offset in gone)
            _complain_of_loss(partition, gone, lost)
    if said is not None and said.done and said.done[-1].stop > end:
        logger.warning(
            "The metadata of %s-%d says that offset %d is done, but the partition ends at %d: it "
            "was cut short, the metadata is ignored, and messages may run again.",
            partition.topic, partition.partition, said.done[-1].stop - 1, end,
        )  # fmt: skip
        said = None
    client.seek(partition, position)
    if epoch >= 0:  # so that the client notices a log that is cut short from now on
        client._subscription.seek(partition, OffsetAndMetadata(position, "", epoch))
    inbox.open(
        partition, position, make_order(options.ordering), journal,
        committed.offset if committed else None,
        known=said.done if said else (),
        attempts=attempts.known(options.state_directory, partition, position, said, journal),
        topic=commit_metadata.digest(topic_id),
        epoch=epoch,
        lost=lost,
    )  # fmt: skip
    logger.info("Consuming %s-%d from offset %d.", partition.topic, partition.partition, position)
    return position


def is_made_anew(client: KafkaConsumer, inbox: Inbox, partition: TopicPartition) -> bool:
    """Whether the topic is another than the one that was opened, by what the client knows now."""
    topic_id = client._cluster.topic_id(partition.topic)
    opened = inbox.topic(partition)
    # A topic that is away at this moment has no id.
    return topic_id is not None and opened not in ("", commit_metadata.digest(topic_id))


def pass_over_deleted(client: KafkaConsumer, inbox: Inbox, partition: TopicPartition) -> bool:
    """Go on at a partition's first record, if retention deleted what was to be read next.

    What was fetched before is at hand, and runs.

    Returns:
        False if that is not what happened: the records are others than those that were read.

    Raises:
        RetriableError: the brokers did not answer.
    """
    position = client._subscription.assignment[partition].position.offset
    refresh(client)
    if is_made_anew(client, inbox, partition):
        return False
    first: int = client.beginning_offsets([partition])[partition]
    if position > client.end_offsets([partition])[partition]:
        return False
    if position < first:
        lost = inbox.pass_over(partition, first)
        _complain_of_loss(partition, range(position, first), lost)
        client.seek(partition, first)
    return True


def _said(partition: TopicPartition, committed: OffsetAndMetadata | None) -> CommitMetadata | None:
    """Return what lies beside the committed offset, if this transport wrote it for that offset."""
    if committed is None or not committed.metadata:
        return None
    said = commit_metadata.decode(committed.metadata)
    if said is None or said.watermark != committed.offset:
        logger.warning(
            "The metadata of %s-%d's committed offset %d is damaged or somebody else's (%.40r): it "
            "is ignored; messages that were done above the offset may run again.",
            partition.topic, partition.partition, committed.offset, committed.metadata,
        )  # fmt: skip
        return None
    return said


def _before(
    cut: int,
    partition: TopicPartition,
    committed: OffsetAndMetadata,
    said: CommitMetadata | None,
    journal: Journal | None,
) -> tuple[int, CommitMetadata | None]:
    """Return what was committed as far as it is about records that are still there.

    From `cut` on others may lie at the same offsets: they are neither done nor under suspicion. Where
    all that the commit speaks of is there, what the journal knows beyond is of a later leader, and holds.
    """
    read = said.done[-1].stop if said and said.done else committed.offset
    if journal is not None:
        journal.cut(cut, done=cut < read)
    if cut >= read:
        return committed.offset, said
    logger.error(
        "The log of %s-%d was cut short at offset %d, and had been done up to %d: brokers that had "
        "all of it were lost, and with them the records from there on. Going on with what is left.",
        *partition, cut, read,
    )  # fmt: skip
    if said is not None:
        counts = {offset: count for offset, count in said.attempts.items() if offset < cut}
        said = replace(said, done=tuple(below(said.done, cut)), attempts=counts)
    return min(cut, committed.offset), said


def _journal(
    client: KafkaConsumer,
    options: Options,
    partition: TopicPartition,
    topic_id: object,
    committed: OffsetAndMetadata | None,
    said: CommitMetadata | None,
) -> Journal | None:
    if options.state_directory is None:
        return None
    identity = JournalIdentity(
        cluster=str(client._cluster.cluster_id),
        group=options.group_id,
        topic=partition.topic,
        topic_id=str(topic_id),
        partition=partition.partition,
    )
    return Journal(
        options.state_directory, identity, committed.offset if committed else None,
        committed.metadata or "" if committed else "", said.journal if said else "",
    )  # fmt: skip


def _complain_of_loss(partition: TopicPartition, gone: range, lost: int) -> None:
    logger.error(
        "Retention deleted %s of %s-%d before consumption (offsets %d to %d): starting at the first "
        "record that is left, offset %d; lengthen retention.ms.",
        counted(lost, "record"), partition.topic, partition.partition,
        gone.start, gone.stop - 1, gone.stop,
    )  # fmt: skip
