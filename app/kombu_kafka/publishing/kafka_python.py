"""Publishing through kafka-python."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from kafka import KafkaProducer
from kafka.errors import (
    InvalidTopicError,
    KafkaTimeoutError,
    UnknownTopicOrPartitionError,
)
from kafka.util import ensure_valid_topic_name

from ..clients import lookup
from ..clients.handshake import reaching
from ..errors import PartitionNotFoundError
from ..options import Options
from ..record import Headers
from . import client

__all__ = ("KafkaPython",)


class KafkaPython:
    """A :class:`~.client.Client`.

    Arguments:
        options: the brokers and how long to wait for them.
        bulk: whether messages wait a moment for others, so that many leave in one request.

    Raises:
        AuthenticationError: the brokers don't let this client in.
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """

    def __init__(self, options: Options, *, bulk: bool) -> None:
        self._options = options
        waiting = (
            {"linger_ms": client.BULK_LINGER_MS, "batch_size": client.BULK_BATCH_BYTES}
            if bulk
            else {}
        )
        with reaching(options):
            self._client = KafkaProducer(
                **{
                    **options.client_settings(),
                    "request_timeout_ms": client.request_timeout_ms(options),
                    **waiting,
                },
                acks="all",
                retries=client.RETRIES,
                enable_idempotence=True,
                retry_backoff_ms=client.RETRY_BACKOFF_MS,
                delivery_timeout_ms=int(options.publish_timeout * 1000),
                max_block_ms=int(options.connect_timeout * 1000),
                max_request_size=options.max_message_bytes + client.OVERHEAD_BYTES,
                metadata_max_age_ms=client.METADATA_MAX_AGE_MS,
                metrics_enabled=False,
            )
        _blame_only_the_culprit(self._client._transaction_manager)

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
    ) -> client.Confirmation:
        """Take a record; see :class:`~.client.Client`."""
        self.require(topic, partition)
        sent: client.Confirmation = self._client.send(
            topic, value=value, key=key, headers=headers, partition=partition
        )
        return sent

    def require(self, topic: str, partition: int | None) -> None:
        """Make sure that a topic and a partition are there; see :class:`~.client.Client`."""
        self._require_topic(topic)
        if partition is not None:
            self._require_partition(topic, partition)

    def ask(self, question: Callable[..., Any], *args: Any) -> Any:
        """Run a coroutine of requests on the network thread; see :class:`~.client.Client`."""
        return lookup.ask(self._manager, self._options.connect_timeout, question, *args)

    @property
    def _manager(self) -> Any:
        return self._client._sender._client._manager

    @property
    def failed(self) -> bool:
        """Whether it lost its place in its sequence for good."""
        transactions = self._client._transaction_manager
        return transactions is not None and bool(transactions.has_fatal_error())

    def forget(self, topics: Collection[str]) -> None:
        """Ask the brokers for these topics no longer, and know nothing of them."""
        metadata = self._client._metadata
        with metadata._lock:
            # Made anew, not changed: the network thread walks through them.
            metadata._topics = metadata._topics - set(topics)
            metadata._partitions = {
                topic: found for topic, found in metadata._partitions.items() if topic not in topics
            }

    def close(self, timeout: float) -> None:
        """Send what is left and end."""
        try:
            self._client.close(timeout=timeout)
        except KafkaTimeoutError:  # then the client has not ended
            self._client._sender.force_close()

    def _require_topic(self, topic: str) -> None:
        """Wait for a topic that is new; tell one that never comes from brokers that don't answer."""
        metadata = self._client._metadata
        known = metadata.partitions_for_topic(topic) is not None
        if known and topic in metadata._topics:
            return
        seconds = min(client.TOPIC_SECONDS, self._options.connect_timeout)
        try:
            ensure_valid_topic_name(topic)
            if not lookup.await_topic(self._manager, seconds, topic):
                raise UnknownTopicOrPartitionError(topic)
            if known:
                # It was forgotten, and an answer on its way brought it back: it may be of one that was deleted,
                # and a record for a partition that is gone would wait until it is given up.
                self.forget([topic])
            self._client._wait_on_metadata(topic, seconds * 1000)
        except ValueError as exc:
            raise InvalidTopicError(str(exc)) from exc
        finally:
            if metadata.partitions_for_topic(topic) is None:
                # Or the client would ask for it twice a second, for ever.
                self.forget([topic])

    def _require_partition(self, topic: str, partition: int) -> None:
        deadline = time.monotonic() + 5
        known = self._client.partitions_for(topic) or set()
        while partition not in known and time.monotonic() < deadline:
            # The topic may have grown since the client last looked.
            self._client._metadata.request_update()
            time.sleep(0.1)
            known = self._client.partitions_for(topic) or set()
        if partition not in known:
            raise PartitionNotFoundError(
                f"The topic {topic} has no partition {partition}: it has {len(known)}, numbered "
                f"from 0."
            )


def _blame_only_the_culprit(transactions: Any) -> None:
    """Have a batch that failed fail alone.

    A message that a broker refuses for good (too large, not authorized) makes kafka-python's
    idempotent producer fail whatever else is on its way, with that message's error. Its sequence
    numbers only have to begin anew, as they do after other errors; also where a batch was given up
    after its retries, or the next one would be out of sequence.
    """
    classify = transactions.classify_batch_error

    def classified(error: Any, batch: Any, log_start_offset: int = -1) -> Any:
        kind = classify(error, batch, log_start_offset=log_start_offset)
        error_type = error if isinstance(error, type) else type(error)
        begins_anew = kind in (transactions.ERROR_CLASS_FATAL, transactions.ERROR_CLASS_RETRIABLE)
        if begins_anew and error_type not in transactions._FATAL_ERRORS:
            return transactions.ERROR_CLASS_NEEDS_EPOCH_BUMP
        return kind

    transactions.classify_batch_error = classified
