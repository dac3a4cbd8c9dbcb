"""Polling, waiting between two polls, and looking topics up, past faults of Kafka's client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import LeaderNotAvailableError, NoError, for_code
from kafka.protocol.consumer import OffsetForLeaderEpochRequest
from kafka.structs import TopicPartition

__all__ = ("answered", "end_of_epoch", "forget", "hold", "poll", "refresh", "settled", "wait")

#: Milliseconds brokers may take to describe topics.
METADATA_MS = 5000
#: Seconds between two looks, while waiting, at whether the client has to rejoin its group.
LOOK_SECONDS = 0.25
#: Seconds to wait where partitions are to be read and no request is out (no leader, no connection).
RETRY_SECONDS = 0.1
#: The same for a partition of which none is out, while other brokers hold theirs.
UNASKED_SECONDS = 0.5


def poll(client: Any, **arguments: Any) -> dict[TopicPartition, list[ConsumerRecord]]:
    """Poll a consumer whose partitions are paused and resumed, or that is a member of a group.

    Three faults of kafka-python 3.0.12 are mended here.

    A rebalance that a change of the subscription or of a topic's partitions set off goes on beyond
    the poll that began it. The next poll is to wait for its end, but as soon as the member has
    sent its subscription, or dealt the partitions out, the change counts as dealt with: nobody
    waits for the answer any more, and the member is left without heartbeats and without an
    assignment. So what is not finished is asked for again.

    The client sets records of a paused partition aside and takes them up again only where
    its place for the batch being read is None. A batch that is read to its end stays there, though:
    with several partitions, one that was paused is then never read again.

    An answer without records (as the first is after a pause) makes the client forget which leader
    wrote what it read last, and so by what it would notice that the log was cut short.

    Arguments:
        client: a ``KafkaConsumer``.
        arguments: as for its ``poll``.
    """
    coordinator = client._coordinator
    if coordinator.rejoining:
        coordinator.request_rejoin()
    with _mended(client):
        return client.poll(**arguments)  # type: ignore[no-any-return]


def answered(client: Any) -> dict[TopicPartition, list[ConsumerRecord]]:
    """Return what was fetched, at once: none of a poll's other steps, nor the next request.

    For after `wait`: those steps take a millisecond, for which the records would wait too. Nothing while the client
    settles something with its group: what is assigned may change at this moment, and the next poll returns it.

    Arguments:
        client: a ``KafkaConsumer`` that the calling thread owns, and polls soon.
    """
    if not settled(client):
        return {}
    with _mended(client):
        records, _ = client._fetcher.fetched_records()
    return records  # type: ignore[no-any-return]


@contextmanager
def _mended(client: Any) -> Iterator[None]:
    """Take fetched records past the second and the third fault that `poll` tells of."""
    fetcher = client._fetcher
    if fetcher._next_partition_records is not None and not fetcher._next_partition_records:
        fetcher._next_partition_records = None
    states = [(state, state.position) for state in tuple(client._subscription.assignment.values())]
    try:
        yield
    finally:
        for state, before in states:
            now = state.position
            if before and now and now.offset == before.offset and now.leader_epoch < 0:
                state.position = before


def refresh(client: Any) -> None:
    """Ask the brokers for the topics' ids, partitions and leaders now.

    Raises:
        KafkaTimeoutError: they did not answer in time.
    """
    manager = client._coordinator._manager
    asked = manager.call_soon(client._cluster.refresh_metadata)
    client._coordinator._net.run(manager.wait_for, asked, METADATA_MS)


def end_of_epoch(client: Any, partition: TopicPartition, epoch: int) -> int | None:
    """Return how far a partition's log is what its leaders wrote up to an epoch; None if unknown.

    Where that is less than what was read in that epoch, the log was cut short meanwhile: brokers
    that had all of it were lost, and what lies there now are other records.

    Arguments:
        client: a ``KafkaConsumer``.
        partition: which one.
        epoch: of the leader that something was read from.

    Raises:
        RetriableError: no broker leads the partition, or it did not answer.
    """
    leader = client._cluster.leader_for_partition(partition)
    if leader is None or leader < 0:
        raise LeaderNotAvailableError(f"{partition.topic}-{partition.partition} has no leader")
    topic = OffsetForLeaderEpochRequest.OffsetForLeaderTopic
    asked = topic.OffsetForLeaderPartition(
        partition=partition.partition, current_leader_epoch=-1, leader_epoch=epoch
    )
    request = OffsetForLeaderEpochRequest(
        replica_id=-1, topics=[topic(topic=partition.topic, partitions=[asked])]
    )

    async def ask() -> Any:
        return await client._coordinator._manager.send(request, node_id=leader)

    ((answer,),) = (found.partitions for found in client._coordinator._net.run(ask).topics)
    error = for_code(answer.error_code)
    if error is not NoError:
        raise error()
    return None if answer.end_offset < 0 else int(answer.end_offset)


def forget(client: Any, partition: TopicPartition) -> None:
    """Throw away what was fetched of a partition and not returned: it is no longer what lies there."""
    fetcher = client._fetcher
    fetcher._paused_partition_records.pop(partition, None)
    fetcher._paused_completed_fetches.pop(partition, None)
    for fetched in tuple(fetcher._completed_fetches):
        if fetched.topic_partition == partition:
            fetcher._completed_fetches.remove(fetched)
    reading = fetcher._next_partition_records
    if reading is not None and reading.topic_partition == partition:
        fetcher._next_partition_records = None


def settled(client: Any) -> bool:
    """Whether a group member's client has nothing to settle with its group, so that `wait` will do."""
    coordinator = client._coordinator
    return coordinator.coordinator_id is not None and not _rejoins(coordinator)


def hold(client: Any, milliseconds: int) -> int:
    """Have brokers hold a request so long that nothing answers.

    Returns:
        Milliseconds to `wait` for it: a wait that ended just before the answer would cost a poll.
    """
    client._fetcher.config["fetch_max_wait_ms"] = milliseconds
    return 2 * milliseconds


def wait(client: Any, wake: threading.Event, seconds: float) -> None:
    """Wait until a poll may return something, `wake` is set, or so many seconds are over.

    A poll costs about a millisecond whether there is something or not, as each of its steps goes
    to the client's I/O thread and back. So a client that has nothing to do is better waited for
    here, and polled (with no timeout) when a request of its was answered.

    Arguments:
        client: a ``KafkaConsumer`` that the calling thread owns.
        wake: is set when a request is answered, too; the caller clears it *before* it polls.
        seconds: for how long at most.
    """
    fetcher, coordinator = client._fetcher, client._coordinator
    # One that was answered since the last poll fires at once.
    pending = list(fetcher._fetch_futures)
    for future in [*pending, fetcher._reset_task, fetcher._validation_task]:
        if future is not None and (future in pending or not future.is_done):
            future.add_both(lambda _: wake.set())
    asked = fetcher._nodes_with_pending_fetch_requests
    if any(
        _leader(client, one) not in asked for one in client._subscription.fetchable_partitions()
    ):
        seconds = min(seconds, UNASKED_SECONDS if pending else RETRY_SECONDS)
    deadline = time.monotonic() + seconds
    while not _rejoins(coordinator):
        left = deadline - time.monotonic()
        if left <= 0 or wake.wait(min(left, LOOK_SECONDS)):
            return


def _leader(client: Any, partition: TopicPartition) -> int | None:
    try:
        return client._cluster.leader_for_partition(partition)  # type: ignore[no-any-return]
    except KeyError:  # what is known of the topics changed just now
        return None


def _rejoins(coordinator: Any) -> bool:
    """Whether only polls take a member on: it has to rejoin, or has begun to (see `poll`)."""
    return bool(coordinator.need_rejoin() or coordinator.rejoining)
