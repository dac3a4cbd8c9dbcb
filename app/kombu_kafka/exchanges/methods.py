"""What a channel does about exchanges: declare, bind, and find out who gets a message."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.transport import virtual
from kombu.utils.uuid import uuid

from ..errors import ConfigurationError, PublishError
from . import routing
from .bindings import Binding, bindings
from .directory import directory
from .transients import TransientQueue, ensure_exchange

if TYPE_CHECKING:
    from ..transport import Transport

__all__ = ("ExchangeChannel", "Routes")

logger = logging.getLogger(__name__)

#: ``delivery_mode`` of a message that nobody waits for.
TRANSIENT = 1
#: Seconds between two attempts to make an exchange's topic that this client may not make.
REFUSED_SECONDS = 30.0

_refused: dict[str, float] = {}


@dataclass(frozen=True)
class Routes:
    """Where a message goes.

    Attributes:
        queues: durable queues, each of which gets it in its topic.
        topic: the exchange's topic, where transient queues look for it; None for none.
        partition: the partition of `topic`.
    """

    queues: frozenset[str] = frozenset()
    topic: str | None = None
    partition: int = 0


class ExchangeChannel(virtual.Channel):
    """The exchanges' half of a channel."""

    supports_fanout = True

    connection: Transport

    # Declaring

    def exchange_declare(
        self, exchange: str | None = None, type: str = "direct", *args: Any, **kwargs: Any
    ) -> None:
        """Declare an exchange; it is known to this connection.

        Raises:
            UnsupportedError: it is of a type that this transport doesn't have.
        """
        routing.require_type(exchange or "", type or routing.DIRECT)
        super().exchange_declare(exchange, type, *args, **kwargs)

    def transient(self, queue: str) -> TransientQueue | None:
        """Return a queue without a topic of its own; None where the queue has one."""
        found = self.connection.transients.get(queue)
        if found is None and routing.is_reply_queue(queue):
            return self.connection.transients.declare(queue, None)
        return found

    def declare_transient(
        self, queue: str | None, *, durable: bool = False, exclusive: bool = False,
        auto_delete: bool = False, **kwargs: Any,
    ) -> virtual.base.queue_declare_ok_t | None:  # fmt: skip
        """Declare a queue if it is transient; return None if it is not.

        Raises:
            ConfigurationError: its name says that it is transient, its declaration that it's not.
        """
        name = queue or f"amq.gen-{uuid()}"
        if not routing.is_transient(exclusive=exclusive, auto_delete=auto_delete):
            if routing.is_reply_queue(name) and self.connection.transients.get(name) is None:
                raise ConfigurationError(
                    f"The queue {name} can't be durable: a UUID is the name of a queue for "
                    f"replies, which goes with its consumer; give it another name, or declare it "
                    f"with auto_delete=True."
                )
            return None
        owner = id(self.connection) if exclusive else None
        declared = self.connection.transients.declare(name, owner)
        return virtual.base.queue_declare_ok_t(name, 0, declared.consumers)

    def delete_transient(self, queue: str) -> bool:
        """Delete a queue if it is transient; return whether it is."""
        if self.connection.transients.get(queue) is None:
            return False
        self.connection.forget(queue)
        self.state.queue_bindings_delete(queue)
        for exchange in self.state.exchanges.values():
            exchange["table"][:] = [row for row in exchange["table"] if row[2] != queue]
        return True

    def after_reply_message_received(self, queue: str) -> None:
        """Delete a queue for replies; it may be gone already, and was never a topic."""
        self.delete_transient(queue)

    def queue_bind(
        self, queue: str, exchange: str | None = None, routing_key: str = "",
        arguments: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Bind a queue; what is published from now on reaches it, whoever publishes.

        Raises:
            ConfigurationError: the exchange is not declared on this connection.
            KombuKafkaError: the binding could not be made known.
        """
        exchange = exchange or "amq.direct"
        declared = self.state.exchanges.get(exchange)
        if declared is None:
            raise ConfigurationError(
                f"The queue {queue} can't be bound to the exchange {exchange!r}, which is not "
                f"declared on this connection: declare it first."
            )
        routing_key, kind = routing_key or "", declared["type"]
        transient = self.connection.transients.get(queue)
        if transient is not None:
            if not transient.bindings:
                self.connection.subscriber.warm()
            self.connection.transients.bind(queue, exchange, kind, routing_key)
        elif not self.state.has_binding(queue, exchange, routing_key):
            bindings(self.connection.options).add(Binding(queue, exchange, routing_key), kind)
        super().queue_bind(queue, exchange, routing_key, arguments, **kwargs)

    def _queue_bind(self, *args: Any) -> None:
        """Nothing more is to do: who gets a message is decided where it is published or read."""

    def queue_unbind(
        self, queue: str, exchange: str | None = None, routing_key: str = "",
        arguments: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Take a binding back, for all publishers."""
        exchange, routing_key = exchange or "amq.direct", routing_key or ""
        if self.connection.transients.get(queue) is not None:
            self.connection.transients.unbind(queue, exchange, routing_key)
        else:
            bindings(self.connection.options).remove(Binding(queue, exchange, routing_key))
        super().queue_unbind(queue, exchange, routing_key, arguments, **kwargs)

    # Routing

    def routes(self, message: dict[str, Any], exchange: str, routing_key: str) -> Routes:
        """Return where a message goes.

        Raises:
            PublishError: nowhere, and it is not one that may vanish.
            BrokerUnavailableError: no broker answered within ``connect_timeout``.
        """
        if not exchange:
            if not routing.is_reply_queue(routing_key) and (
                self.connection.transients.get(routing_key) is None
            ):
                return Routes(frozenset([routing_key]))
            count = ensure_exchange(self.connection.options, "", routing.DIRECT)
            return Routes(
                topic=routing.REPLY_TOPIC,
                partition=routing.partition_of(routing.DIRECT, routing_key, count),
            )
        known = bindings(self.connection.options)
        declared = self.state.exchanges.get(exchange)
        # AMQP too forgets what a passing exchange was given and had no queue for.
        lasting = message["properties"].get("delivery_mode") != TRANSIENT and (
            declared is None or declared["durable"]
        )
        queues = known.queues(exchange, routing_key, current=lasting)
        if declared is not None:
            kind = declared["type"]
            queues |= self._bound_here(exchange, kind, routing_key)
        else:
            kind = known.kind_of(exchange, current=False) or routing.DIRECT
        readable = self._readable(exchange, kind, lasting=lasting, routed=bool(queues))
        if readable is not None:
            return Routes(
                frozenset(queues),
                routing.exchange_topic(exchange),
                routing.partition_of(kind, routing_key, readable),
            )
        if not queues and lasting:
            raise PublishError(
                f"No queue is bound to the exchange {exchange!r} by {routing_key!r}, so the "
                f"message would vanish: declare the queue before publishing."
            )
        return Routes(frozenset(queues))

    def _bound_here(self, exchange: str, kind: str, routing_key: str) -> set[str]:
        """Durable queues that were bound on this connection."""
        return {
            bound.queue
            for bound in tuple(self.state.bindings)
            if bound.exchange == exchange
            and routing.matches(kind, bound.routing_key, routing_key)
            and self.connection.transients.get(bound.queue) is None
        }

    def _readable(self, exchange: str, kind: str, *, lasting: bool, routed: bool) -> int | None:
        """Partitions of the exchange's topic, or None: then no transient queue was ever bound."""
        options = self.connection.options
        topic = routing.exchange_topic(exchange)
        if routed or lasting or kind == routing.DIRECT:
            return directory(options).partitions(topic, fresh=not routed)
        if time.monotonic() - _refused.get(topic, -REFUSED_SECONDS) < REFUSED_SECONDS:
            return None
        try:
            # Made by whoever comes first: a first reader misses nothing published before its
            # binding was known.
            return ensure_exchange(options, exchange, kind)
        except PublishError as exc:
            _refused[topic] = time.monotonic()
            logger.warning("What is published to %s is dropped. %s", exchange, exc)
            return None
