"""A channel's methods that are about queues as a whole, or about single messages of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.exceptions import ChannelError
from kombu.transport.base import to_rabbitmq_queue_arguments
from kombu.transport.virtual import base

from ..exchanges.methods import ExchangeChannel
from . import administration as queues
from .expiry import queue_ttl

if TYPE_CHECKING:
    from ..consuming.inbox import Delivery
    from ..message import Message

__all__ = ("QueueMethods",)


class QueueMethods(ExchangeChannel):
    """Part of :class:`~kombu_kafka.channel.Channel`."""

    def open(self, delivery: Delivery, consumer_tag: str, *, no_ack: bool) -> Message | None:
        """Return a record as a message; None where it is none."""
        raise NotImplementedError

    def prepare_queue_arguments(self, arguments: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the arguments of a queue with ``Queue(message_ttl=…)`` and its like among them."""
        return dict(to_rabbitmq_queue_arguments(arguments, **kwargs))

    def queue_declare(
        self,
        queue: str | None = None,
        passive: bool = False,
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> base.queue_declare_ok_t:
        """Declare a queue, or (`passive`) ask for its length.

        A declaration makes no topic: that is in the inventory, or the brokers make it with the first
        message; and a queue that goes with its consumer (``exclusive`` or ``auto_delete``) has none.
        Asked passively, the result holds how many messages the group has not done, those
        being worked on included; otherwise 0, since asking takes a round trip to the brokers.

        Raises:
            ChannelError: `passive`, and there is no such queue.
        """
        known = self.transient(queue) if queue and passive else None
        if known is not None:
            return base.queue_declare_ok_t(queue, 0, known.consumers)
        transient = self.declare_transient(queue, **kwargs) if not passive or not queue else None
        if transient is not None or queue is None:
            return transient
        if not passive:
            self.connection.declared(queue, queue_ttl(arguments))
            return base.queue_declare_ok_t(queue, 0, 0)
        size = self._size(queue)
        if size is None:
            raise ChannelError(
                f"NOT_FOUND - no queue {queue!r}: there is no topic of that name, and this "
                f"connection has not declared it.",
                (50, 10),
                "Channel.queue_declare",
                404,
            )
        return base.queue_declare_ok_t(queue, size, 0)

    def queue_purge(self, queue: str, **kwargs: Any) -> int:
        """Delete all messages of a queue; return how many there were.

        Raises:
            ConfigurationError: the brokers refuse it.
        """
        if self.transient(queue) is not None:
            return self._purge_transient(queue)
        topics = self.connection.topics_of(queue)
        count = queues.purge(self.connection.options, topics)
        self.connection.purged(topics)
        return count

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any
    ) -> None:
        """Delete a queue: its bindings, its topic and all that lies there.

        Arguments:
            queue: its name; one that is not there is no error.
            if_unused: only if this connection does not consume it, nor any member of the group.
            if_empty: only if all its messages are done.

        Raises:
            ConfigurationError: the brokers refuse it.
        """
        if self.delete_transient(queue):
            return
        topics = self.connection.topics_of(queue)
        if if_empty and self._size(queue):
            return
        if if_unused and (
            any(map(self.connection.receivers.of, topics))
            or queues.has_members(self.connection.options, topics)
        ):
            return
        self._unbind_all(queue)
        self.connection.purged(topics, deleted=True)
        queues.delete(self.connection.options, topics)

    def exchange_delete(self, exchange: str, if_unused: bool = False, **kwargs: Any) -> None:
        """Forget an exchange and its bindings; the queues bound to it stay."""
        found = self.state.exchanges.get(exchange)
        if found is None or (if_unused and found["table"]):
            return
        for _, _, queue in list(found["table"]):
            self._unbind_all(queue, exchange)
        self.state.exchanges.pop(exchange, None)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Message | None:
        """Return a message of a queue, or None if there is none for this process.

        It comes from the partitions that this connection owns, as with a consumer, and the connection
        owns them from the first call on.

        Raises:
            BrokerUnavailableError: it took longer than ``connect_timeout`` to find out.
        """
        if self.transient(queue) is None:
            return self.connection.get(self, queue, no_ack)
        delivery = self.connection.get_transient(queue)
        return None if delivery is None else self.open(delivery, "", no_ack=no_ack)

    def _size(self, queue: str) -> int | None:
        size = queues.length(self.connection.options, self.connection.topics_of(queue))
        return 0 if size is None and self.connection.is_declared(queue) else size

    def _unbind_all(self, queue: str, exchange: str | None = None) -> None:
        for bound, routing_key, arguments in list(self.state.queue_bindings(queue)):
            if exchange in (None, bound):
                self.queue_unbind(queue, bound, routing_key, arguments)

    def _purge_transient(self, queue: str) -> int:
        count = 0
        while (delivery := self.connection.get_transient(queue)) is not None:
            self.connection.holder(delivery.tag).settle(delivery.tag)
            count += 1
        return count
