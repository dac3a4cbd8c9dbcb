"""The kombu transport: ``Connection("kafka://…")``."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from functools import cached_property
from typing import Any

import kafka
from kombu.transport import virtual

from .channel import Channel as KafkaChannel
from .clients.secret import make_discreet
from .consumer import Consumer
from .consuming.inbox import Delivery, Inbox
from .delay.dispatcher import Dispatcher
from .errors import (
    BrokerUnavailableError,
    KombuKafkaError,
    PartitionNotFoundError,
    PublishError,
)
from .exchanges.routing import DIRECT, EXCHANGE_TYPES
from .exchanges.subscriber import Subscriber, is_transient_tag
from .exchanges.transients import TransientQueues, queues
from .forking import make_forks_safe
from .options import Options
from .publishing import producer
from .queues.transport import QueueTransport
from .receivers import Receiver, Receivers
from .url import DEFAULT_PORT, mask_password
from .wakeup import Wakeup

__all__ = ("Transport",)

logger = logging.getLogger(__name__)

#: Messages handed out before the event loop gets its turn, and seconds for it: the solo pool runs a task
#: where it is handed out, and a signal, a timer or a heartbeat is not to wait for a hundred of them.
BURST, BURST_SECONDS = 100, 0.05


class Transport(QueueTransport):
    """Apache Kafka as a broker.

    A process's partitions are read by one consumer (and its thread) a connection, what is
    published to exchanges by one subscriber; messages come out of both on the event loop, or in
    :meth:`drain_events`.
    """

    Channel = KafkaChannel
    can_parse_url = True
    default_port = DEFAULT_PORT
    driver_type = "kafka"
    driver_name = "kafka-python"
    connection_errors = (*virtual.Transport.connection_errors, BrokerUnavailableError)
    channel_errors = (*virtual.Transport.channel_errors, PublishError, PartitionNotFoundError)
    #: What kombu's and Celery's retry policies repeat; everything else is told at once.
    recoverable_connection_errors = (
        *virtual.Transport.connection_errors,
        BrokerUnavailableError,
    )
    recoverable_channel_errors: tuple[type[Exception], ...] = ()
    implements = virtual.Transport.implements.extend(
        asynchronous=True, batch_publish=True, exchange_type=EXCHANGE_TYPES, heartbeats=False
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        make_discreet(client)
        self.receivers = Receivers()
        #: Transient queue → its consumers, the next one in front.
        self.listeners: dict[str, list[Receiver]] = {}
        #: Forwards delayed messages, once this connection consumes.
        self.dispatcher: Dispatcher | None = None
        self._loop: Any = None
        self._pid = os.getpid()
        self._tasks_first = False

    @cached_property
    def options(self) -> Options:
        """Options of this connection, checked.

        Raises:
            ConfigurationError: the URL or an option is wrong.
        """
        client = self.client
        return Options.of(
            client.hostname, client.transport_options, client.ssl,
            username=client.userid, password=client.password,
        )  # fmt: skip

    @cached_property
    def consumer(self) -> Consumer:
        """The consumer of this connection; its thread starts with the first queue."""
        return Consumer(self.options, self.wakeup)

    @cached_property
    def subscriber(self) -> Subscriber:
        """The reader of exchanges of this connection; its thread starts with the first queue."""
        return Subscriber(self.options, self.wakeup)

    @cached_property
    def wakeup(self) -> Wakeup:
        """What the event loop waits on."""
        return Wakeup()

    @property
    def transients(self) -> TransientQueues:
        """The queues without topics that this process has declared."""
        return queues(self.options)

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
        make_forks_safe()
        producer.shared(self.options)
        super().establish_connection()
        return self

    def close_connection(self, connection: Transport) -> None:
        """Close; what is in flight may still be acknowledged until the process ends."""
        if self._pid != os.getpid():
            return  # a forked child: threads, sockets and descriptors are the parent's
        self._unregister()
        super().close_connection(connection)
        if "subscriber" in self.__dict__:
            self.subscriber.close()
        if "options" in self.__dict__:
            self.transients.release(id(self))
        if "consumer" in self.__dict__ and self.consumer.started:
            self.consumer.close()  # and the wakeup with it, when all is settled
        elif "wakeup" in self.__dict__:
            self.wakeup.close()
        if self.dispatcher is not None:
            self.dispatcher.close()

    def verify_connection(self, connection: Transport) -> bool:
        """Whether the connection is of use: False once its consumer has failed."""
        return self._failure() is None

    def positions(self) -> dict[tuple[str, int], int] | None:
        """Where consumption of each partition of this process began, by topic and partition.

        Returns:
            None until every bound partition is owned and positioned or, in a group, until this
            process has joined and its share, if any, is positioned.
        """
        return self.consumer.positions()

    # Consuming

    def consume(self, receiver: Receiver) -> None:
        """Have a consumer get what comes from its queue."""
        transient = receiver.channel.transient(receiver.queue)
        if transient is not None:
            if not transient.bindings:
                self.transients.bind(transient.name, "", DIRECT, transient.name)
            transient.consumers += 1
            self.listeners.setdefault(transient.name, []).append(receiver)
            self.subscriber.add(transient)
        else:
            self.prepare_steps(receiver.queue)
            topics = self.topics_of(receiver.queue)
            for rank, topic in enumerate(topics):
                self.receivers.add(topic, receiver, rank)
            self.begin(topics)
            self._dispatch()
        self.wakeup.set()

    def _dispatch(self) -> None:
        """Have a dispatcher: what was delayed must arrive."""
        options = self.options
        if self.dispatcher is None and options.delay_dispatcher and options.delay_topic:
            self.dispatcher = Dispatcher(options)
            self.dispatcher.start()

    def cancel(self, channel: KafkaChannel, consumer_tag: str) -> None:
        """Hand out nothing more to a consumer."""
        if self._pid != os.getpid():
            return  # a forked child: the consumers are the parent's
        for topic in self.receivers.remove(channel, consumer_tag):
            self.consumer.cancel(topic)
        for name, receivers in list(self.listeners.items()):
            for receiver in tuple(receivers):
                if receiver.channel is not channel or receiver.tag != consumer_tag:
                    continue
                receivers.remove(receiver)
                transient = self.transients.get(name)
                if transient is not None:
                    transient.consumers -= 1
                    if not transient.consumers:
                        channel.delete_transient(name)
            if not receivers:
                self.listeners.pop(name, None)
                self.subscriber.remove(name)

    def forget(self, queue: str) -> None:
        """Delete a transient queue: its consumers here get nothing more."""
        self.listeners.pop(queue, None)
        if "subscriber" in self.__dict__:
            self.subscriber.remove(queue)
        self.transients.delete(queue)

    def get_transient(self, queue: str) -> Delivery | None:
        """Return the next message of a transient queue, or None if there is none now."""
        transient = self.transients.get(queue)
        if transient is None or not transient.bindings:
            return None
        self.subscriber.add(transient)
        try:
            taken = self.subscriber.take_now(queue)
            return None if taken is None else taken[1]
        finally:
            if queue not in self.listeners:
                self.subscriber.remove(queue)

    def holder(self, tag: int) -> Inbox | Subscriber:
        """Return who knows the message with this delivery tag."""
        return self.subscriber if is_transient_tag(tag) else self.consumer.inbox

    def register_with_event_loop(self, connection: Transport, loop: Any) -> None:
        """Deliver messages from Celery's event loop, when there are some."""
        self._loop = loop
        loop.add_reader(self.wakeup.fd, self.on_readable, connection, loop)

    def on_readable(self, connection: Transport, loop: Any) -> None:
        """Deliver what may be worked on now.

        A message that its consumer can't take (it raises) goes to the dead letter topic; anything
        else would have it delivered, and the worker ended by it, for ever.

        Raises:
            KombuKafkaError: the consumer has failed.
        """
        self.wakeup.clear()
        failure = self._failure()
        if failure is not None:
            raise failure
        until = time.monotonic() + BURST_SECONDS
        for _ in range(BURST):
            if not self._deliver_one(guarded=True):
                return
            if time.monotonic() > until:
                break
        self.wakeup.set()

    def drain_events(self, connection: Transport, timeout: float | None = None) -> None:
        """Deliver at least one message.

        Arguments:
            connection: this transport.
            timeout: seconds to wait; None waits for ever.

        Raises:
            socket.timeout: nothing came in time.
            KombuKafkaError: the consumer has failed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self.wakeup.clear()
            failure = self._failure()
            if failure is not None:
                raise failure
            if self._deliver_one(guarded=False):
                self.wakeup.set()
                return
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self.wakeup.wait(left):
                raise TimeoutError(f"no message within {timeout} seconds")

    def _failure(self) -> KombuKafkaError | None:
        return self.consumer.error if "consumer" in self.__dict__ else None

    def _deliver_one(self, *, guarded: bool) -> bool:
        # In turns: neither a flood of events nor one of tasks may keep the other waiting.
        self._tasks_first = not self._tasks_first
        if self._tasks_first:
            found = self._next_queued() or self._next_published()
        else:
            found = self._next_published() or self._next_queued()
        if found is None:
            return False
        self._deliver(*found, guarded=guarded)
        return True

    def _next_queued(self) -> tuple[Delivery, Receiver] | None:
        """Return the next message of a queue with a topic, if its consumer has room."""
        if not self.receivers:
            return None
        taken = map(self.consumer.inbox.take, self.receivers.ready())
        delivery = next(filter(None, taken), None)
        if delivery is None:
            return None
        return delivery, self.receivers.next(delivery.record.topic)

    def _next_published(self) -> tuple[Delivery, Receiver] | None:
        """Return the next message of a transient queue; these know no prefetch limit."""
        if not self.listeners:
            return None
        taken = self.subscriber.take(self.listeners)
        if taken is None:
            return None
        queue, delivery = taken
        receivers = self.listeners[queue]
        receivers.append(receivers.pop(0))
        return delivery, receivers[-1]

    def _deliver(self, delivery: Delivery, receiver: Receiver, *, guarded: bool) -> None:
        try:
            receiver.channel.deliver(delivery, receiver)
        except self.connection_errors:
            self.holder(delivery.tag).requeue(delivery.tag)
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

    def _unregister(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            with contextlib.suppress(KeyError, OSError, ValueError):
                loop.remove_reader(self.wakeup.fd)
