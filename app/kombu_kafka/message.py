"""A message as kombu's consumers get it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.message import Message as BaseMessage

from .consuming.inbox import Delivery
from .exchanges.subscriber import is_transient_tag
from .record import PROPERTY_DEFAULTS, Envelope

if TYPE_CHECKING:
    from .channel import Channel

__all__ = ("Message",)


class Message(BaseMessage):
    """One record, decoded.

    Where it came from is in `delivery_info` and, since a pool's child sees only headers, in the
    headers ``kafka_topic``, ``kafka_partition``, ``kafka_offset``, ``kafka_key`` (text, or None),
    ``kafka_timestamp`` (milliseconds since the epoch) and ``kafka_attempt`` (1, and 1 more for each time
    that the message took its process down; None for a broadcast one).

    Arguments:
        delivery: the record on its way.
        envelope: its headers, decoded; they become the message's.
        channel: the channel that delivers it.
        consumer_tag: the consumer it is for.
    """

    def __init__(
        self, delivery: Delivery, envelope: Envelope, channel: Channel, consumer_tag: str,
    ) -> None:  # fmt: skip
        record = delivery.record
        key = None if record.key is None else record.key.decode(errors="replace")
        headers, properties = envelope.headers, envelope.properties
        headers["kafka_topic"] = record.topic
        headers["kafka_partition"] = record.partition
        headers["kafka_offset"] = record.offset
        headers["kafka_timestamp"] = record.timestamp
        headers["kafka_key"] = key
        headers["kafka_attempt"] = None if is_transient_tag(delivery.tag) else delivery.attempts + 1
        for name, default in PROPERTY_DEFAULTS.items():
            properties.setdefault(name, default)
        properties["delivery_tag"] = delivery.tag
        super().__init__(
            body=record.value,
            delivery_tag=delivery.tag,
            content_type=envelope.content_type,
            content_encoding=envelope.content_encoding,
            headers=headers,
            properties=properties,
            delivery_info={
                "exchange": properties.get("exchange", ""),
                "routing_key": properties.get("routing_key", record.topic),
                "redelivered": delivery.redelivered,
                "consumer_tag": consumer_tag,
                "partition_key": key,
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "timestamp": record.timestamp,
            },
            channel=channel,
        )
        self._undecodable: Exception | None = self.errors[0][1] if self.errors else None
        #: Why whoever consumes will reject it: the letter's reason and details.
        self.refusal: tuple[str, dict[str, str]] | None = None

    def decode(self) -> Any:
        """Deserialize the body; the result is remembered.

        Raises:
            kombu.exceptions.DecodeError: the body is not what its content type says.
            kombu.exceptions.ContentDisallowed: its content type is not accepted.
        """
        try:
            return super().decode()
        except Exception as exc:
            self._undecodable = exc
            raise

    def ack(self, multiple: bool = False) -> None:
        """Acknowledge the message.

        A body that could not be decoded goes to the dead letter topic first: Celery acknowledges
        such messages to be rid of them, and nothing may vanish.
        """
        if self._undecodable is None or self.acknowledged:
            super().ack(multiple=multiple)
            return
        self._dead_letter(
            reason="undecodable",
            headers={
                "exception": type(self._undecodable).__name__,
                "message": str(self._undecodable),
            },
        )
        self._state = "ACK"

    def reject(self, requeue: bool = False) -> None:
        """Reject the message; without `requeue` it goes to the dead letter topic."""
        if self.refusal is None or requeue or self.acknowledged:
            super().reject(requeue=requeue)
            return
        reason, details = self.refusal
        self._dead_letter(reason=reason, headers=details)
        self._state = "REJECTED"

    def _dead_letter(self, *, reason: str, headers: dict[str, str]) -> None:
        self.channel.dead_letter(self.delivery_tag, reason=reason, headers=headers)
