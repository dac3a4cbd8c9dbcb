"""The kombu transport: ``Connection("kafka://…")``."""

from __future__ import annotations

import contextlib
import logging
import select
import time
from functools import cached_property
from typing import Any

import kafka
from kombu.transport import virtual

from . import producer
from .channel import Channel as KafkaChannel
from .consumer import Consumer
from .errors import BrokerUnavailableError, PartitionNotFoundError, PublishError
from .options import Options
from .receivers import Receiver, Receivers
from .url import DEFAULT_PORT, mask_password, parse

__all__ = ("Transport",)

logger = logging.getLogger(__name__)

#: The queue that Celery uses where nobody names one.
DEFAULT_QUEUE = "celery"
#: Messages handed out before the event loop gets its turn.
BURST = 100


class Transport(virtual.Transport):
    """Apache Kafka as a broker.

    A process's partitions are read by one consumer (and its thread) a connection; messages come
    out of it on the event loop, or in :meth:`drain_events`.
    """

    Channel = KafkaChannel
    can_parse_url = True
    default_port = DEFAULT_PORT
    driver_type = "kafka"
    driver_name = "kafka-python"
    connection_errors = (*virtual.Transport.connection_errors, BrokerUnavailableError)
    channel_errors = (*virtual.Transport.channel_errors, PublishError, PartitionNotFoundError)
    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset(["direct", "topic"]), heartbeats=False
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.receivers = Receivers()
        self._loop: Any = None

    @cached_property
    def options(self) -> Options:
        """Options of this connection, checked.

        Raises:
            ConfigurationError: the URL or an option is wrong.
        """
        return Options.of(self.client.hostname, self.client.transport_options)

    @cached_property
    def consumer(self) -> Consumer:
        """The consumer of this connection; its thread starts with the first queue."""
        return Consumer(self.options)

    def driver_version(self) -> str:
        """Return the version of Kafka's client."""
        return str(kafka.__version__)

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return the broker URL as it may be shown."""
        return uri if include_password else mask_password(uri, mask)

    def establish_connection(self) -> Transport:
        """Connect, or find the process's connection.

        Raises:
            ConfigurationError: the URL or an option is wrong.
            BrokerUnavailableError: no broker answered within ``connect_timeout``.
        """
        producer.shared(self.options)
        super().establish_connection()
        return self

    def close_connection(self, connection: Transport) -> None:
        """Close; what is in flight may still be acknowledged until the process ends."""
        self._unregister()
        super().close_connection(connection)
        if "consumer" in self.__dict__:
            self.consumer.close()

    def verify_connection(self, connection: Transport) -> bool:
        """Whether the connection is of use: False once its consumer has failed."""
        return "consumer" not in self.__dict__ or self.consumer.error is None

    def positions(self) -> dict[tuple[str, int], int] | None:
        """Where consumption of each bound partition began, by topic and partition.

        Returns:
            None until every bound partition is assigned and positioned.
        """
        return self.consumer.positions()

    @cached_property
    def default_topic(self) -> str | None:
        """The topic that the broker URL names after ``//``, or None."""
        return parse(self.client.hostname).topic

    def topic_of(self, queue: str) -> str:
        """Return the topic of a queue: its own name, or the URL's topic for Celery's default queue."""
        return self.default_topic or queue if queue == DEFAULT_QUEUE else queue

    # Consuming

    def consume(self, receiver: Receiver) -> None:
        """Have a consumer get what comes from its queue."""
        topic = self.topic_of(receiver.queue)
        self.receivers.add(topic, receiver)
        self.consumer.consume(topic)
        self.consumer.inbox.wakeup.set()

    def cancel(self, channel: KafkaChannel, consumer_tag: str) -> None:
        """Hand out nothing more to a consumer."""
        self.receivers.remove(channel, consumer_tag)

    def register_with_event_loop(self, connection: Transport, loop: Any) -> None:
        """Deliver messages from Celery's event loop, when the consumer has some."""
        self._loop = loop
        loop.add_reader(self.consumer.inbox.wakeup.fd, self.on_readable, connection, loop)

    def on_readable(self, connection: Transport, loop: Any) -> None:
        """Deliver what may be worked on now.

        A message that its consumer can't take (it raises) goes to the dead letter topic; anything
        else would have it delivered, and the worker ended by it, for ever.

        Raises:
            KombuKafkaError: the consumer has failed.
        """
        self.consumer.inbox.wakeup.clear()
        if self.consumer.error is not None:
            raise self.consumer.error
        for _ in range(BURST):
            if not self._deliver_one(guarded=True):
                return
        self.consumer.inbox.wakeup.set()

    def drain_events(self, connection: Transport, timeout: float | None = None) -> None:
        """Deliver at least one message.

        Arguments:
            connection: this transport.
            timeout: seconds to wait; None waits for ever.

        Raises:
            socket.timeout: nothing came in time.
            KombuKafkaError: the consumer has failed.
        """
        wakeup = self.consumer.inbox.wakeup
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            wakeup.clear()
            if self.consumer.error is not None:
                raise self.consumer.error
            if self._deliver_one(guarded=False):
                wakeup.set()
                return
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([wakeup.fd], [], [], left)
            if not readable:
                raise TimeoutError(f"no message within {timeout} seconds")

    def _deliver_one(self, *, guarded: bool) -> bool:
        taken = map(self.consumer.inbox.take, self.receivers.ready())
        delivery = next(filter(None, taken), None)
        if delivery is None:
            return False
        receiver = self.receivers.next(delivery.record.topic)
        try:
            receiver.channel.deliver(delivery, receiver)
        except self.connection_errors:
            self.consumer.inbox.requeue(delivery.tag)
            raise
        except Exception as exc:
            if not guarded:
                raise
            record = delivery.record
            logger.exception(
                "%s-%d at offset %d goes to the dead letter topic: its consumer can't take it.",
                record.topic, record.partition, record.offset,
            )  # fmt: skip
            receiver.channel.dead_letter(
                delivery.tag,
                reason="refused",
                headers={"exception": type(exc).__name__, "message": str(exc)},
            )
        return True

    def _unregister(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and "consumer" in self.__dict__:
            with contextlib.suppress(KeyError, OSError, ValueError):
                loop.remove_reader(self.consumer.inbox.wakeup.fd)
