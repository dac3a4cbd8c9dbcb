"""Publishing: one idempotent producer a process, shared by all its connections.

A producer owns sockets and a thread, so it never crosses a fork: a child makes its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from .errors import BrokerUnavailableError, KombuKafkaError, PartitionNotFoundError, publish_error
from .options import Options
from .record import Headers

__all__ = ("RETRIES", "Producer", "close_all", "shared")

#: How often the client sends a batch again before it reports an error.
RETRIES = 5
#: Between two of them, in milliseconds: five of them outlast the election of a new leader.
RETRY_BACKOFF_MS = 500
#: After this a message that the brokers have not confirmed is reported as failed.
DELIVERY_TIMEOUT_MS = 60_000
#: A partition added to a topic is seen after this at the latest.
METADATA_MAX_AGE_MS = 30_000

_lock = threading.Lock()
_producers: dict[Options, Producer] = {}
#: Producers of the parent process: kept, because collecting one would wait for its dead thread.
_inherited: list[dict[Options, Producer]] = []


class Producer:
    """Confirmed publishing with ``acks=all``.

    Arguments:
        options: the brokers and how long to wait for them.

    Raises:
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """

    def __init__(self, options: Options) -> None:
        self._patience = options.connect_timeout
        try:
            self._client = KafkaProducer(
                **options.client_settings(),
                acks="all",
                retries=RETRIES,
                enable_idempotence=True,
                retry_backoff_ms=RETRY_BACKOFF_MS,
                delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
                max_block_ms=int(options.connect_timeout * 1000),
                metadata_max_age_ms=METADATA_MAX_AGE_MS,
                metrics_enabled=False,
            )
        except KafkaError as exc:
            raise BrokerUnavailableError(
                f"No Kafka broker of {', '.join(options.hosts)} answered within "
                f"{options.connect_timeout:g} seconds ({exc}): check the addresses and that the "
                f"brokers are up."
            ) from exc

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
        future = self.send(topic, value, key=key, headers=headers, partition=partition)
        if not confirm:
            return
        try:
            future.get(timeout=DELIVERY_TIMEOUT_MS / 1000 + 5)
        except KafkaError as exc:
            raise publish_error(exc, topic, partition) from exc

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
        if not answered.wait(self._patience):
            raise KafkaTimeoutError(f"no answer within {self._patience:g} seconds")
        if future.exception is not None:
            raise future.exception
        return future.value

    @property
    def failed(self) -> bool:
        """Whether the client can send nothing more (it lost its place in its sequence for good)."""
        transactions = self._client._transaction_manager
        return transactions is not None and bool(transactions.has_fatal_error())

    def close(self, timeout: float) -> None:
        """Send what is left and end, `timeout` seconds at most."""
        self._client.close(timeout=timeout)

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


def shared(options: Options) -> Producer:
    """Return this process's producer for `options`, made at the first call.

    Raises:
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """
    with _lock:
        producer = _producers.get(options)
        if producer is not None and producer.failed:
            _producers.pop(options).close(timeout=1)
            producer = None
        if producer is None:
            producer = _producers[options] = Producer(options)
        return producer


def close_all(timeout: float = 5.0) -> None:
    """Close this process's producers; the next :func:`shared` makes new ones."""
    with _lock:
        for producer in _producers.values():
            producer.close(timeout)
        _producers.clear()


def _after_fork_in_child() -> None:
    global _lock, _producers
    _lock = threading.Lock()
    _inherited.append(_producers)
    _producers = {}


os.register_at_fork(after_in_child=_after_fork_in_child)
