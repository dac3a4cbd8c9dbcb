"""Commits that Kafka takes from a partition's last owner alone.

Each bound partition has a transactional id. Whoever initializes it fences all that did so before:
their commits are refused from then on, be they on their way or still to come. It also ends a
transaction that a killed owner left open.

A commit is a transaction of its own, and needs no membership in the group: so it works beside
workers that share other topics in the same group, which Kafka would otherwise let nobody commit
beside. The requests go over the consumer's connections; a producer for each partition would cost a
thread and sockets each.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from kafka import KafkaConsumer
from kafka.cluster import CoordinatorType
from kafka.errors import (
    ConcurrentTransactionsError,
    CoordinatorNotAvailableError,
    InvalidProducerEpochError,
    NoError,
    NotCoordinatorError,
    ProducerFencedError,
    RetriableError,
    for_code,
)
from kafka.protocol.metadata import FindCoordinatorRequest
from kafka.protocol.producer import (
    AddOffsetsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)
from kafka.structs import OffsetAndMetadata, TopicPartition

from ..clients.answer import Answer

__all__ = ("Fence", "commit_all")

logger = logging.getLogger(__name__)

#: Seconds between two tries while the transaction before is still being completed.
BACKOFF = 0.02
#: Milliseconds after which a broker ends a transaction that a killed owner left open.
TRANSACTION_TIMEOUT_MS = 15_000


class Fence:
    """The right to commit one partition.

    Arguments:
        client: the consumer that reads the partition.
        group_id: the group whose offsets are committed.
        partition: which one.
    """

    def __init__(self, client: KafkaConsumer, group_id: str, partition: TopicPartition) -> None:
        self._client = client
        self._manager = client._manager
        self._group_id = group_id
        self._partition = partition
        self._id = f"{group_id}.{partition.topic}.{partition.partition}"
        self._coordinator: Any = None
        self._producer: tuple[int, int] = (-1, -1)
        self._unfinished = False

    def begin(self, timeout: float) -> None:
        """Fence every owner before this one.

        Raises:
            KafkaError: it did not work; it may be tried again.
        """
        self._producer = (-1, -1)
        self._client._net.run(self._retried, timeout, self._begin)

    def confirm(self, timeout: float) -> None:
        """Make sure that nobody has fenced this owner.

        Raises:
            ProducerFencedError: somebody has.
            KafkaError: it did not work; it may be tried again.
        """
        self._client._net.run(self._retried, timeout, self._begin)

    async def commit(self, offset: OffsetAndMetadata, timeout: float) -> None:
        """Commit; runs in the client's I/O thread.

        Raises:
            ProducerFencedError: there is an owner after this one, or the brokers gave a transaction
                up that took too long.
            KafkaError: it did not work; it may be tried again.
        """
        await self._retried(timeout, self._commit, offset)

    async def _retried(self, timeout: float, function: Any, *args: Any) -> None:
        # No step is given up while its request is out: it would go on behind the next one's back.
        deadline = time.monotonic() + timeout
        while True:
            try:
                return await function(*args)  # type: ignore[no-any-return]
            except InvalidProducerEpochError as exc:
                raise ProducerFencedError(str(exc)) from exc
            except RetriableError as exc:
                if not isinstance(exc, ConcurrentTransactionsError):
                    self._coordinator = None
                if time.monotonic() > deadline:
                    raise
                await self._client._net.sleep(BACKOFF)

    async def _begin(self) -> None:
        """Start over: as who was the last owner so far, or (no producer yet) as a new one."""
        producer, epoch = self._producer
        response = await self._ask(
            InitProducerIdRequest(
                transactional_id=self._id,
                transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
                producer_id=producer,
                producer_epoch=epoch,
                min_version=3,
                max_version=4,
            )
        )
        _check(response.error_code)
        self._producer = (response.producer_id, response.producer_epoch)
        self._unfinished = False

    async def _commit(self, offset: OffsetAndMetadata) -> None:
        if self._unfinished:
            await self._begin()
        who = {
            "transactional_id": self._id,
            "producer_id": self._producer[0],
            "producer_epoch": self._producer[1],
        }
        joined = await self._ask(
            AddOffsetsToTxnRequest(**who, group_id=self._group_id, max_version=3)
        )
        _check(joined.error_code)
        self._unfinished = True
        coordinator = self._client._coordinator
        if not await coordinator.ensure_coordinator_ready_async(timeout_ms=1000):
            raise CoordinatorNotAvailableError(self._group_id)
        written = await self._manager.send(
            self._offsets(who, offset), node_id=coordinator.coordinator()
        )
        for _, partitions in written.topics:
            for _, error_code in partitions:
                if for_code(error_code) in (NotCoordinatorError, CoordinatorNotAvailableError):
                    coordinator.coordinator_dead(for_code(error_code)())
                _check(error_code)
        ended = await self._ask(EndTxnRequest(**who, committed=True, max_version=3))
        _check(ended.error_code)
        self._unfinished = False

    def _offsets(self, who: Mapping[str, Any], offset: OffsetAndMetadata) -> Any:
        topic = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
        partition = topic.TxnOffsetCommitRequestPartition(
            partition_index=self._partition.partition,
            committed_offset=offset.offset,
            committed_leader_epoch=offset.leader_epoch,
            committed_metadata=offset.metadata,
        )
        return TxnOffsetCommitRequest(
            **who,
            group_id=self._group_id,
            generation_id=-1,
            member_id="",
            group_instance_id=None,
            topics=[topic(name=self._partition.topic, partitions=[partition])],
            max_version=3,
        )

    async def _ask(self, request: Any) -> Any:
        if self._coordinator is None:
            found = await self._manager.send(
                FindCoordinatorRequest(
                    key=self._id,
                    key_type=CoordinatorType.TRANSACTION.value,
                    coordinator_keys=[self._id],
                )
            )
            (answer,) = found.coordinators
            _check(answer.error_code)
            self._coordinator = self._client._cluster.add_coordinator(
                answer, CoordinatorType.TRANSACTION, self._id
            )
        return await self._manager.send(request, node_id=self._coordinator)


def commit_all(
    commits: Mapping[Fence, OffsetAndMetadata], timeout: float
) -> Answer[dict[Fence, Exception | None]]:
    """Begin to commit several partitions of one client at once.

    Returns:
        Where it will say why a partition's commit did not work, or None.
    """

    async def together() -> dict[Fence, Exception | None]:
        begun = {
            fence: fence._manager.call_soon(fence.commit, offset, timeout)
            for fence, offset in commits.items()
        }
        outcome: dict[Fence, Exception | None] = {}
        for fence, future in begun.items():
            try:
                await future
            except Exception as exc:  # noqa: BLE001 - each partition's is told
                outcome[fence] = exc
            else:
                outcome[fence] = None
        return outcome

    fence = next(iter(commits))
    return Answer(fence._client, together)


def _check(error_code: int) -> None:
    error = for_code(error_code)
    if error is not NoError:
        raise error()
