"""Publishing: an idempotent producer a process, shared by all its connections, and one for its bulks.

A producer owns sockets and a thread, so it never crosses a fork: a child makes its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import (
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    UnknownTopicOrPartitionError,
)

from ..clients.handshake import reaching, require_access
from ..errors import BrokerUnavailableError, KombuKafkaError, PartitionNotFoundError, publish_error
from ..options import Options
from ..record import Headers
from . import batches

__all__ = ("RETRIES", "Producer", "close_all", "forget", "shared")

#: How often the client sends a batch again before it reports an error.
RETRIES = 5
#: Between two of them, in milliseconds: five of them outlast the election of a new leader.
RETRY_BACKOFF_MS = 500
#: Milliseconds that a message of a bulk waits for others to leave with, and bytes that wait no longer. A
#: request costs this client ten times what a message does, and a publisher that makes a message every
#: fifth of a millisecond would otherwise get a request for every few.
BULK_LINGER_MS, BULK_BATCH_BYTES = 5, 256 * 1024
#: Seconds in which a topic that the brokers make by themselves appears.
TOPIC_SECONDS = 10.0
#: What a record and its request hold besides the message, in bytes; a dead letter's headers most.
OVERHEAD_BYTES = 65_536
#: A partition added to a topic is seen after this at the latest.
METADATA_MAX_AGE_MS = 30_000

#: Seconds that an unconfirmed message has to leave a forked child (of Celery's prefork pool, say),
#: which may end at any moment without a farewell.
CHILD_SECONDS = 5.0

_is_child = False
_lock = threading.Lock()
#: By options, and whether they are for bulks.
_producers: dict[tuple[Options, bool], Producer] = {}
#: Producers of the parent process: kept, because collecting one would wait for its dead thread.
_inherited: list[dict[tuple[Options, bool], Producer]] = []


class Producer:
    """Confirmed publishing with ``acks=all``.

    Arguments:
        options: the brokers and how long to wait for them.
        bulk: whether messages wait a moment for others, so that many leave in one request.

    Raises:
        AuthenticationError: the brokers don't let this client in.
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """

    def __init__(self, options: Options, *, bulk: bool = False) -> None:
        self._options = options
        waiting = {"linger_ms": BULK_LINGER_MS, "batch_size": BULK_BATCH_BYTES} if bulk else {}
        # Each try must be over before the message is given up.
        request_timeout_ms = min(
            options.client_settings()["request_timeout_ms"], int(options.publish_timeout * 500)
        )
        with reaching(options):
            self._client = KafkaProducer(
                **{
                    **options.client_settings(),
                    "request_timeout_ms": request_timeout_ms,
                    **waiting,
                },
                acks="all",
                retries=RETRIES,
                enable_idempotence=True,
                retry_backoff_ms=RETRY_BACKOFF_MS,
                delivery_timeout_ms=int(options.publish_timeout * 1000),
                max_block_ms=int(options.connect_timeout * 1000),
                max_request_size=options.max_message_bytes + OVERHEAD_BYTES,
                metadata_max_age_ms=METADATA_MAX_AGE_MS,
                metrics_enabled=False,
            )
        _blame_only_the_culprit(self._client._transaction_manager)

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
    ) -> Any:
        """Hand a record over; the future returned resolves when it is confirmed, or not.

        Raises:
            KombuKafkaError: the record could not be handed over.
        """
        try:
            self._require_topic(topic)
            if partition is not None:
                self._require_partition(topic, partition)
            return self._client.send(
                topic, value=value, key=key, headers=headers or [], partition=partition
            )
        except KombuKafkaError:
            raise
        except (KafkaError, ValueError, TypeError, AssertionError) as exc:
            raise publish_error(exc, topic, partition) from exc

    def publish(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        confirm: bool = True,
    ) -> None:
        """Publish a record; with `confirm`, return once every in-sync replica has it.

        Raises:
            PublishError: the record can't be stored as it is.
            PartitionNotFoundError: the topic has no such partition.
            BrokerUnavailableError: it was not confirmed in time.
        """
        batch = batches.current()
        # All of a bulk, so that what isn't waited for keeps its place among the rest.
        sender = self if batch is None else shared(self._options, bulk=True)
        future = sender.send(topic, value, key=key, headers=headers, partition=partition)
        if not confirm:
            if _is_child:
                with suppress(KafkaError):
                    future.get(timeout=CHILD_SECONDS)
            return
        if batch is not None:
            batch.add(future, topic, partition, headers or [], self._options.publish_timeout)
            return
        try:
            self.confirm(future)
        except KafkaError as exc:
            error = publish_error(exc, topic, partition)
            if isinstance(error, BrokerUnavailableError):
                require_access(self._options, again=True)
            raise error from exc

    def confirm(self, future: Any) -> None:
        """Wait for what :meth:`send` returned.

        Raises:
            kafka.errors.KafkaError: the record was refused, or not confirmed in time.
        """
        future.get(timeout=self._options.publish_timeout + 5)

    def ask(self, question: Callable[..., Any], *args: Any) -> Any:
        """Run a coroutine of requests on the client's network thread; return what it returns.

        Arguments:
            question: called there with the client's connection manager and `args`.
            args: anything.

        Raises:
            KafkaError: what the coroutine raised, or that it took longer than ``connect_timeout``.
        """
        future = self._client._sender._client._manager.call_soon(
            question, self._client._sender._client._manager, *args
        )
        answered = threading.Event()
        future.add_both(lambda _: answered.set())
        if not answered.wait(self._options.connect_timeout):
            raise KafkaTimeoutError(f"no answer within {self._options.connect_timeout:g} seconds")
        if future.exception is not None:
            raise future.exception
        return future.value

    def require(self, topic: str, partition: int | None) -> None:
        """Make sure that a topic, and a partition of it if one is named, are there.

        Raises:
            KombuKafkaError: they are not, or that is not known.
        """
        try:
            self._require_topic(topic)
            if partition is not None:
                self._require_partition(topic, partition)
        except KombuKafkaError:
            raise
        except (KafkaError, ValueError, TypeError, AssertionError) as exc:
            raise publish_error(exc, topic, partition) from exc

    @property
    def failed(self) -> bool:
        """Whether the client can send nothing more (it lost its place in its sequence for good)."""
        transactions = self._client._transaction_manager
        return transactions is not None and bool(transactions.has_fatal_error())

    def forget(self, topics: Collection[str]) -> None:
        """Ask the brokers for these topics no longer, until something is published to them."""
        for topic in topics:
            self._client._metadata._topics.discard(topic)

    def close(self, timeout: float) -> None:
        """Send what is left and end, `timeout` seconds at most; what is not sent then has failed."""
        try:
            self._client.close(timeout=timeout)
        except KafkaTimeoutError:  # then the client has not ended
            self._client._sender.force_close()

    def _require_topic(self, topic: str) -> None:
        """Wait for a topic that is new; tell one that never comes from brokers that don't answer."""
        metadata = self._client._metadata
        if metadata.partitions_for_topic(topic) is not None:
            return
        began = time.monotonic() * 1000
        try:
            self._client._wait_on_metadata(
                topic, min(TOPIC_SECONDS, self._options.connect_timeout) * 1000
            )
        except ValueError as exc:
            raise InvalidTopicError(str(exc)) from exc
        except KafkaTimeoutError as exc:
            if metadata._last_successful_refresh_ms > began:
                raise UnknownTopicOrPartitionError(topic) from exc
            raise
        finally:
            if metadata.partitions_for_topic(topic) is None:
                # Or the client would ask for it twice a second, for ever.
                metadata._topics.discard(topic)

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


def shared(options: Options, *, bulk: bool = False) -> Producer:
    """Return this process's producer for `options` (or that of its bulks), made at the first call.

    Raises:
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """
    with _lock:
        place = options, bulk
        producer = _producers.get(place)
        if producer is not None and producer.failed:
            _producers.pop(place).close(timeout=1)
            producer = None
        if producer is None:
            producer = _producers[place] = Producer(options, bulk=bulk)
        return producer


def forget(topics: Collection[str]) -> None:
    """Have this process's producers no longer ask for topics: asking makes brokers create them."""
    with _lock:
        for producer in _producers.values():
            producer.forget(topics)


def close_all(timeout: float = 5.0) -> None:
    """Close this process's producers; the next :func:`shared` makes new ones."""
    with _lock:
        for producer in _producers.values():
            producer.close(timeout)
        _producers.clear()


def _after_fork_in_child() -> None:
    global _lock, _producers, _is_child
    _is_child = True
    _lock = threading.Lock()
    _inherited.append(_producers)
    _producers = {}


os.register_at_fork(after_in_child=_after_fork_in_child)
