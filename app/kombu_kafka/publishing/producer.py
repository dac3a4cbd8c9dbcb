"""Publishing: an idempotent producer a process, shared by all its connections, and one for its bulks.

A producer owns sockets and threads, so it never crosses a fork: a child makes its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

from kafka.errors import KafkaError

from ..clients.handshake import require_access
from ..errors import (
    BrokerUnavailableError,
    ConfigurationError,
    KombuKafkaError,
    publish_error,
)
from ..options import KAFKA_PYTHON, LIBRDKAFKA, Options
from ..record import Headers
from . import batches
from .client import Client, Confirmation
from .kafka_python import KafkaPython

__all__ = ("Producer", "close_all", "forget", "shared")

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
    """Confirmed publishing with ``acks=all``, whatever client does it.

    Arguments:
        options: the brokers, how long to wait for them, and through which client.
        bulk: whether messages wait a moment for others, so that many leave in one request.

    Raises:
        AuthenticationError: the brokers don't let this client in.
        ConfigurationError: the client is not installed, or can't work here.
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """

    def __init__(self, options: Options, *, bulk: bool = False) -> None:
        self._options = options
        self._client = _client(options, bulk)

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
    ) -> Confirmation:
        """Hand a record over; what is returned resolves when it is confirmed, or not.

        Raises:
            KombuKafkaError: the record could not be handed over.
        """
        try:
            return self._client.send(
                topic, value, key=key, headers=headers or [], partition=partition
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
        confirmation = sender.send(topic, value, key=key, headers=headers, partition=partition)
        if not confirm:
            if _is_child:
                with suppress(KafkaError):
                    confirmation.get(timeout=CHILD_SECONDS)
            return
        if batch is not None:
            batch.add(confirmation, topic, partition, headers or [], self._options.publish_timeout)
            return
        try:
            self.confirm(confirmation)
        except KafkaError as exc:
            error = publish_error(exc, topic, partition)
            if isinstance(error, BrokerUnavailableError):
                require_access(self._options, again=True)
            raise error from exc

    def confirm(self, confirmation: Confirmation) -> None:
        """Wait for what :meth:`send` returned.

        Raises:
            kafka.errors.KafkaError: the record was refused, or not confirmed in time.
        """
        confirmation.get(timeout=self._options.publish_timeout + 5)

    def ask(self, question: Callable[..., Any], *args: Any) -> Any:
        """Run a coroutine of requests; see :meth:`.client.Client.ask`."""
        return self._client.ask(question, *args)

    def require(self, topic: str, partition: int | None) -> None:
        """Make sure that a topic, and a partition of it if one is named, are there.

        Raises:
            KombuKafkaError: they are not, or that is not known.
        """
        try:
            self._client.require(topic, partition)
        except KombuKafkaError:
            raise
        except (KafkaError, ValueError, TypeError, AssertionError) as exc:
            raise publish_error(exc, topic, partition) from exc

    @property
    def failed(self) -> bool:
        """Whether the client can send nothing more."""
        return self._client.failed

    def forget(self, topics: Collection[str]) -> None:
        """Ask the brokers for these topics no longer, until something is published to them."""
        self._client.forget(topics)

    def close(self, timeout: float) -> None:
        """Send what is left and end, `timeout` seconds at most; what is not sent then has failed."""
        self._client.close(timeout)


def _client(options: Options, bulk: bool) -> Client:
    if options.publisher_client == KAFKA_PYTHON:
        return KafkaPython(options, bulk=bulk)
    try:
        from .librdkafka import LibRdKafka
    except ImportError as exc:
        raise ConfigurationError(
            f"The transport option 'publisher_client' is {LIBRDKAFKA!r}, whose package is not "
            f"installed ({exc}): pip install 'kombu-kafka[librdkafka]', or remove the option."
        ) from exc
    return LibRdKafka(
        options,
        bulk=bulk,
        other=lambda: shared(replace(options, publisher_client=KAFKA_PYTHON)),
    )


def shared(options: Options, *, bulk: bool = False) -> Producer:
    """Return this process's producer for `options` (or that of its bulks), made at the first call.

    Raises:
        ConfigurationError: its client is not installed, can't work here, or is not let in.
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
