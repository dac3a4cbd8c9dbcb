"""A kombu channel over Kafka: exchanges and bindings in memory, queues as topics."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kafka.consumer.fetcher import ConsumerRecord

from .consuming.inbox import Delivery
from .delay import messages as delay
from .errors import PartitionNotFoundError, PublishError
from .exchanges.directory import directory
from .exchanges.methods import TRANSIENT
from .exchanges.subscriber import is_transient_tag
from .message import Message as KafkaMessage
from .publishing import dead_letters, producer
from .publishing.batches import PublishBatch
from .publishing.dead_letters import Letter
from .queues.expiry import expires_at
from .queues.methods import QueueMethods
from .receivers import Receiver
from .record import Envelope, UndecodableRecordError, decode, encode_headers, is_task

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ("Channel",)

logger = logging.getLogger(__name__)


class Channel(QueueMethods):
    """Publishes to topics and hands out what the transport's threads fetch."""

    Message = KafkaMessage
    do_restore = False

    connection: Transport

    def __init__(self, connection: Transport, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self._prefetch_count = 0
        #: Tags that are not acknowledged, and what tells whether somebody still holds the message, and
        #: so may acknowledge it.
        self._unacknowledged: dict[int, Callable[[], KafkaMessage | None]] = {}

    # Publishing

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Prepare a message; `properties` may hold ``partition_key`` and ``partition``."""
        return {
            "body": body,
            "content-type": content_type,
            "content-encoding": content_encoding,
            "headers": headers or {},
            "properties": {"priority": priority, **(properties or {})},
        }

    def basic_publish(
        self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any
    ) -> None:
        """Publish; returns once every in-sync replica has the message (``delivery_mode`` 2).

        Raises:
            KombuKafkaError: the message is not stored, or that is not known.
        """
        routes = self.routes(message, exchange, routing_key)
        properties = message["properties"]
        for queue in routes.queues:
            topic = self.connection.topic_for(queue, properties.get("priority"))
            key, partition = properties.get("partition_key"), properties.get("partition")
            if partition is not None and (not isinstance(partition, int) or partition < 0):
                raise PublishError(
                    f"The partition {partition!r} for a message to {topic} is not a partition "
                    f"number (0, 1, 2, …)."
                )
            due = delay.due_of(message["headers"])
            self._put(topic, message, key=_key(key, topic), partition=partition, due=due)
        if routes.topic is None:
            return
        properties = {**properties, "exchange": exchange, "routing_key": routing_key or ""}
        message = {**message, "properties": properties}
        try:
            self._put(routes.topic, message, partition=routes.partition)
        except PartitionNotFoundError:
            # The topic was made anew since this process looked.
            directory(self.connection.options).forget(routes.topic)
            again = self.routes(message, exchange, routing_key)
            if again.topic is not None:
                self._put(again.topic, message, partition=again.partition)

    def _put(
        self, topic: str, message: dict[str, Any], *, key: bytes | None = None,
        partition: int | None = None, due: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        properties = message["properties"]
        body = message["body"]
        try:
            headers = encode_headers(
                message["headers"], properties, message["content-type"],
                message["content-encoding"],
            )  # fmt: skip
        except ValueError as exc:
            raise PublishError(f"The message for {topic} can't be sent: {exc}.") from exc
        record: dict[str, Any] = {
            "value": body.encode() if isinstance(body, str) else bytes(body),
            "key": key,
            "headers": headers,
            "partition": partition,
            "confirm": properties.get("delivery_mode") != TRANSIENT,
        }
        if due is None:
            producer.shared(self.connection.options).publish(topic, **record)
        else:
            delay.publish(self.connection.options, topic, due=due, **record)

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """Make what ``Producer.batch()`` publishes through."""
        return PublishBatch(self, max_size)

    # Consuming

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[KafkaMessage], Any], consumer_tag: str,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Consume a queue: this process's partitions of its topic, or what is read for it.

        Raises:
            ConfigurationError: no partitions are bound.
        """
        self._consumers.add(consumer_tag)
        self._tag_to_queue[consumer_tag] = queue
        self.connection.consume(Receiver(self, consumer_tag, queue, no_ack, callback))

    def basic_cancel(self, consumer_tag: str) -> None:
        """Consume a queue no longer."""
        self._consumers.discard(consumer_tag)
        if self._tag_to_queue.pop(consumer_tag, None) is not None:
            self.connection.cancel(self, consumer_tag)

    def can_consume(self) -> bool:
        """Whether the prefetch limit lets another message out."""
        return not self._prefetch_count or len(self._unacknowledged) < self._prefetch_count

    def deliver(self, delivery: Delivery, receiver: Receiver) -> None:
        """Hand a record to a consumer; one that is no message becomes a dead letter."""
        message = self.open(delivery, receiver.tag, no_ack=receiver.no_ack)
        if message is not None:
            receiver.callback(message)

    def open(self, delivery: Delivery, consumer_tag: str, *, no_ack: bool) -> KafkaMessage | None:
        """Return a record as a message.

        Returns:
            None where it is none (then it becomes a dead letter), or has expired (it is done).
        """
        record = delivery.record
        if not is_transient_tag(delivery.tag):
            self._unacknowledged[delivery.tag] = _nobody
        try:
            envelope = decode(record.headers, record.value)
            limit = self._limit(record, envelope)
        except UndecodableRecordError as exc:
            logger.error(
                "%s-%d at offset %d goes to the dead letter topic: %s.",
                record.topic, record.partition, record.offset, exc,
            )  # fmt: skip
            self.dead_letter(delivery.tag, reason="undecodable", headers={"message": str(exc)})
            return None
        if limit is not None and limit <= time.time() * 1000:
            logger.info(
                "%s-%d at offset %d is dropped: it has expired.",
                record.topic, record.partition, record.offset,
            )  # fmt: skip
            self.basic_ack(delivery.tag)
            return None
        message = KafkaMessage(delivery, envelope, self, consumer_tag)
        if no_ack:
            self.basic_ack(delivery.tag)
        elif delivery.tag in self._unacknowledged:
            self._unacknowledged[delivery.tag] = weakref.ref(message)
        return message

    def _limit(self, record: ConsumerRecord, envelope: Envelope) -> int | None:
        expiration, ttl = envelope.properties.get("expiration"), self.connection.ttl(record.topic)
        if expiration is None and ttl is None:
            return None
        if "task" in envelope.headers and envelope.headers.get("expires"):
            expiration = None  # Celery knows too, and tells who waits that it is revoked
        try:
            return expires_at(record.timestamp, expiration, ttl)
        except ValueError as exc:
            raise UndecodableRecordError(f"the header 'amqp-expiration' is wrong: {exc}") from exc

    def basic_qos(
        self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False
    ) -> None:
        """Limit the number of unacknowledged messages of this channel; 0 is no limit."""
        self._prefetch_count = prefetch_count

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Acknowledge: the record is done, and what waited for it may go.

        Arguments:
            delivery_tag: names the message.
            multiple: whether those handed out before it on this channel are done too.
        """
        if multiple:
            for tag in sorted(tag for tag in self._unacknowledged if tag < delivery_tag):
                self.basic_ack(tag)
        self._forget(delivery_tag)
        settled = self.connection.holder(delivery_tag).settle(delivery_tag)
        if not settled and not is_transient_tag(delivery_tag):
            logger.warning("A late acknowledgement was dropped: its message is delivered again.")

    def basic_recover(self, requeue: bool = True) -> None:
        """Have all that is unacknowledged on this channel delivered again, in its place."""
        for tag in sorted(self._unacknowledged, reverse=True):
            self.basic_reject(tag, requeue=True)

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Reject: to the dead letter topic, or (`requeue`) delivered again in its place."""
        if requeue:
            self._forget(delivery_tag)
            self.connection.holder(delivery_tag).requeue(delivery_tag)
        else:
            self.dead_letter(delivery_tag, reason="rejected")

    def dead_letter(
        self, delivery_tag: int, *, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Move a message to the dead letter topic, whole, then acknowledge it.

        Returns at once; the message counts as done when the letter is confirmed, and until then
        its partition waits where the ordering says so.

        Arguments:
            delivery_tag: names the message.
            reason: why, in one word that programs can match.
            headers: more to say, by name without the prefix ``dlq-``.
        """
        holder = self.connection.holder(delivery_tag)
        delivery = holder.find(delivery_tag)
        if delivery is None:
            return
        if is_transient_tag(delivery_tag) and not is_task(delivery.record):
            # An event, a request, a reply: old news to whoever might look at it later.
            holder.settle(delivery_tag)
            return

        def written() -> None:
            self._forget(delivery_tag)
            holder.settle(delivery_tag)

        dead_letters.writer(self.connection.options).write(
            Letter(delivery.record, reason, headers or {}, written)
        )

    @property
    def delivery_limit(self) -> int:
        """How often a message may be begun that takes its process down."""
        return self.connection.options.delivery_limit

    def may_begin(self, delivery_tag: int) -> bool:
        """Whether a message that waited here may be begun: its partition is still this process's.

        Not so after the process was frozen, until Kafka has confirmed that it is the owner.
        """
        if is_transient_tag(delivery_tag):
            return True
        return self.connection.consumer.inbox.may_begin(delivery_tag)

    def attempt_failed(self, delivery_tag: int) -> int:
        """Count a message that took the process down which worked on it; return how often it did.

        It stays unacknowledged: give it back or dead-letter it next. A broadcast one has no more
        than one attempt: nobody keeps account of those.
        """
        if is_transient_tag(delivery_tag):
            return self.delivery_limit
        return self.connection.consumer.inbox.attempt_failed(delivery_tag)

    def close(self) -> None:
        """Close the channel.

        What is unacknowledged can still be acknowledged by whoever holds the message. What nobody
        holds any more is delivered again.
        """
        if self.closed:
            return
        transport = self.connection
        super().close()
        self.connection = transport
        for tag in sorted(self._unacknowledged, reverse=True):
            holds = self._unacknowledged.get(tag)
            if holds is None:
                continue  # another thread settles it at this moment
            requeue, message = transport.consumer.inbox.requeue, holds()
            if message is None:
                requeue(tag)
            else:
                # The message once gone; at the process's end nobody asks.
                weakref.finalize(message, requeue, tag).atexit = False

    def _forget(self, delivery_tag: int) -> None:
        blocked = not self.can_consume()
        self._unacknowledged.pop(delivery_tag, None)
        if blocked:
            self.connection.wakeup.set()


def _nobody() -> None:
    """Nobody holds the message."""


def _key(key: object, queue: str) -> bytes | None:
    if key is None or isinstance(key, bytes):
        return key
    if isinstance(key, str | int):
        return str(key).encode()
    raise PublishError(
        f"The partition key {key!r} for a message to {queue} is a {type(key).__name__}: use text."
    )
