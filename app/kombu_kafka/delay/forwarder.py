"""Forwarding in transactions: records out and offsets in, both or neither."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer
from kafka.errors import (
    AuthorizationError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from kafka.structs import OffsetAndMetadata, TopicPartition
from kafka.util import ensure_valid_topic_name

from ..clients import lookup
from ..options import Options
from ..publishing.client import METADATA_MAX_AGE_MS
from ..record import Headers

__all__ = ("Forwarder", "Outgoing", "RefusedError")

logger = logging.getLogger(__name__)

#: After this Kafka ends a transaction that its producer left open, in milliseconds. A successor
#: ends it at once; this is for the case that there is none.
TRANSACTION_TIMEOUT_MS = 15_000
#: Seconds each step of a transaction may take before the producer is given up.
STEP_SECONDS = 10.0
#: Seconds to find out about a topic.
METADATA_SECONDS = 3.0
#: Seconds for which a topic that was missing is taken to be so.
MISSING_SECONDS = 10.0

#: What a broker says of a record that it will never take.
_REFUSALS = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidTopicError,
    TopicAuthorizationFailedError,
)


@dataclass(frozen=True)
class Outgoing:
    """A record to be written."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers
    partition: int | None = None


class RefusedError(Exception):
    """Kafka will not take a record; nothing of the transaction was written.

    Attributes:
        index: which one of those given, or None where that is not known: try them singly.
        reason: why, in one word.
    """

    def __init__(self, index: int | None, reason: str, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.reason = reason


class Forwarder:
    """A transactional producer; making one ends whatever another of the same id left open.

    Not thread-safe.

    Arguments:
        options: the brokers.
        transactional_id: names the role that only one process plays at a time.
        topics: returns the names of all topics there are.
        missing: remembers, from one forwarder to the next, which topics were not there, and when.

    Attributes:
        broken: whether it must be replaced, as after every transaction that failed: the client's
            sequence numbers are not those of the brokers after an abort (kafka-python 3.0.12).

    Raises:
        KafkaError: no broker answered, or this client may not do this.
    """

    def __init__(
        self,
        options: Options,
        transactional_id: str,
        topics: Callable[[], set[str]],
        missing: dict[str, float],
    ) -> None:
        self.broken = False
        self._topics = topics
        self._missing = missing
        settings = {
            **options.client_settings(),
            "request_timeout_ms": 5000,
        }
        self._client = KafkaProducer(
            **settings,
            transactional_id=transactional_id,
            acks="all",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            delivery_timeout_ms=8000,
            max_block_ms=int(METADATA_SECONDS * 1000),
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            # A transaction that follows another at once is refused for some milliseconds.
            retry_backoff_ms=20,
            metrics_enabled=False,
        )
        try:
            self._client.init_transactions()
        except BaseException:
            self.close()
            raise

    def forward(
        self,
        records: Sequence[Outgoing],
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        group: Any,
    ) -> None:
        """Write records and commit a group's offsets, in one transaction.

        Arguments:
            records: what to write.
            offsets: what the group has consumed when this is committed.
            group: the consumer's ``group_metadata()``; a member that is none any more is refused.

        Raises:
            RefusedError: a record can't be written, and nothing was.
            KafkaError: nothing is known; this forwarder is broken.
        """
        for index, record in enumerate(records):
            self._require(index, record)
        client, manager = self._client, self._client._transaction_manager
        futures: list[Any] = []
        try:
            client.begin_transaction()
            for index, record in enumerate(records):
                try:
                    futures.append(
                        client.send(record.topic, value=record.value, key=record.key,
                                    headers=record.headers, partition=record.partition)
                    )  # fmt: skip
                except (*_REFUSALS, ValueError, TypeError, AssertionError) as exc:
                    raise RefusedError(index, "refused", str(exc) or type(exc).__name__) from exc
            # The client's own methods wait for ever, for instance for a topic deleted just now.
            self._step(manager.send_offsets_to_transaction(dict(offsets), group))
            deadline = time.monotonic() + STEP_SECONDS
            for future in futures:
                # Before the commit: the client may commit without records that it has given up.
                future.get(timeout=max(0.0, deadline - time.monotonic()))
        except RefusedError:
            self.broken = True
            raise
        except KafkaError as exc:
            self.broken = True
            refusal = self._refusal(exc, records, futures)
            if refusal is None:
                raise
            raise refusal from exc
        try:
            self._step(manager.begin_commit())
        except KafkaError:
            self.broken = True
            raise

    def close(self) -> None:
        """End at once; an open transaction is left to the successor."""
        # The client would wait for what it has not sent, and nobody needs that.
        self._client._accumulator.abort_incomplete_batches()
        self._client.close(timeout=1)

    def _require(self, index: int, record: Outgoing) -> None:
        """Refuse a record whose topic or partition is not there."""
        topic, known = record.topic, self._client._metadata.partitions_for_topic(record.topic)
        if not known:
            if time.monotonic() - self._missing.get(topic, -MISSING_SECONDS) < MISSING_SECONDS:
                raise RefusedError(index, "topic-missing", f"the topic {topic} does not exist")
            try:
                ensure_valid_topic_name(topic)
                there = lookup.await_topic(self._manager, METADATA_SECONDS, topic)
            except TopicAuthorizationFailedError as exc:
                raise RefusedError(index, "refused", f"no right to write to {topic}") from exc
            except (ValueError, InvalidTopicError) as exc:
                raise RefusedError(
                    index, "topic-missing", f"no topic can be called {topic!r}"
                ) from exc
            if not there:
                self._missing[topic] = time.monotonic()
                raise RefusedError(index, "topic-missing", f"the topic {topic} does not exist")
            known = self._client.partitions_for(topic)
        if record.partition is not None and record.partition not in known:
            self._client._metadata.request_update()
            raise RefusedError(
                index, "partition-missing",
                f"the topic {topic} has no partition {record.partition}: it has {len(known)}",
            )  # fmt: skip

    @property
    def _manager(self) -> Any:
        return self._client._sender._client._manager

    def _refusal(
        self, exc: KafkaError, records: Sequence[Outgoing], futures: Sequence[Any]
    ) -> RefusedError | None:
        """Return whom the failure of a transaction is to blame on; None if on no record."""
        if not records:
            return None
        errors = [
            exc,
            self._client._transaction_manager.last_error,
            *(future.exception for future in futures if future.is_done),
        ]
        found = next((error for error in errors if isinstance(error, _REFUSALS)), None)
        if found is not None:
            alone = 0 if len(records) == 1 else None
            return RefusedError(alone, "refused", str(found) or type(found).__name__)
        if isinstance(exc, AuthorizationError):
            return None
        there = self._topics()
        gone = [index for index, record in enumerate(records) if record.topic not in there]
        if not gone:
            return None
        topic = records[gone[0]].topic
        self._missing[topic] = time.monotonic()
        return RefusedError(gone[0], "topic-missing", f"the topic {topic} does not exist")

    def _step(self, result: Any) -> None:
        self._client._sender.wakeup()
        if not result.wait(timeout_ms=STEP_SECONDS * 1000):
            raise KafkaTimeoutError(f"Kafka did not answer within {STEP_SECONDS:g} seconds")
