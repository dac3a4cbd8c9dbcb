"""What can be set through ``broker_transport_options``, checked in one place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from .clients.security import SecurityOptions, security_values
from .clients.selector import Selector
from .clients.sockets import DIRECT
from .errors import ConfigurationError
from .order import ORDERINGS
from .priority import check_steps
from .url import BrokerURL, parse
from .url_options import merge, typed

__all__ = ("KAFKA_PYTHON", "LIBRDKAFKA", "PUBLISHER_CLIENTS", "REQUEST_TIMEOUT_MS", "Options")

logger = logging.getLogger(__name__)

KAFKA_PYTHON, LIBRDKAFKA = PUBLISHER_CLIENTS = ("kafka-python", "librdkafka")
#: Milliseconds that a broker may take to answer.
REQUEST_TIMEOUT_MS = 10_000

#: Options that kombu itself reads or that other transports take: not ours, and no mistake.
_FOREIGN = frozenset(
    {"body_encoding", "client_properties", "confirm_publish", "deadletter_queue", "max_retries",
     "interval_start", "interval_step", "interval_max", "polling_interval", "visibility_timeout"}
)  # fmt: skip


@dataclass(frozen=True)
class Options(SecurityOptions):
    """Everything a client of this transport can be told; hashable, so clients can be shared by it.

    Attributes:
        hosts: bootstrap servers, ``host:port`` each.
        group_id: consumer group whose committed offsets say what is done.
        partitions: the partitions this process owns of each queue it consumes, or None.
        ordering: ``partition`` (one message of a partition at a time), ``key`` (one of a key),
            or ``none``.
        dead_letter_topic: where a record goes that can't be processed.
        state_directory: directory of the journals, or None for no journal (then a killed worker
            repeats what was done since the last commit).
        connect_timeout: seconds to wait for the first answer of any broker.
        commit_interval: seconds between two commits of offsets.
        max_buffered: records held of a partition before fetching pauses.
        delivery_limit: how often a record is begun that takes its process down; then it is dead.
        delay_topic: where messages with an ETA wait, or None (then they wait in the worker, and
            under the order ``partition`` they hold their partition).
        delay_limit: seconds ahead that an ETA may lie.
        delay_dispatcher: whether this process may forward delayed messages while it consumes; one
            of them at a time does.
        client_id: name of this client in the brokers' logs and metrics.
        exchange_partitions: partitions of an exchange's topic, where this client makes it: the
            more, the fewer replies and events of others does a reader have to pass over.
        exchange_retention: seconds for which an exchange's topic keeps a message for readers that
            are late, where this client makes the topic.
        worker_name: who this process is to others that own partitions. A name that stays the same
            over restarts spares the group a rebalance (static membership); None for no such name.
        session_timeout: seconds without a sign of life after which a worker's partitions go to
            others.
        revoke_timeout: seconds that messages of a partition which goes to another worker have to
            be finished; then they run again there.
        max_message_bytes: largest message this client sends; beyond it the topic's own limit
            (max.message.bytes, 1 MB by default) decides.
        priority_steps: the priorities that have a topic of their own (0, the highest, has the
            queue's), or none: then priorities are ignored.
        publish_timeout: seconds after which a message that is not confirmed is reported as failed.
        publisher_client: what publishes: ``kafka-python``, or ``librdkafka``, which is faster and an
            extra to install.

    How the brokers are reached, and as whom, is in
    :class:`~kombu_kafka.clients.security.SecurityOptions`.
    """

    hosts: tuple[str, ...]
    group_id: str = "celery-group"
    partitions: tuple[int, ...] | None = None
    ordering: str = "none"
    dead_letter_topic: str = "celery_tasks_dlq"
    state_directory: str | None = None
    connect_timeout: float = 30.0
    commit_interval: float = 0.2
    max_buffered: int = 1000
    delivery_limit: int = 3
    delay_topic: str | None = "celery_delay"
    delay_limit: float = 90 * 86400.0
    delay_dispatcher: bool = True
    client_id: str = "kombu-kafka"
    exchange_partitions: int = 8
    exchange_retention: float = 600.0
    worker_name: str | None = None
    session_timeout: float = 30.0
    revoke_timeout: float = 60.0
    max_message_bytes: int = 16 * 1024 * 1024
    publish_timeout: float = 60.0
    publisher_client: str = KAFKA_PYTHON
    priority_steps: tuple[int, ...] = ()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Worked out once: every publish finds its client by these options."""
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    @classmethod
    def of(
        cls,
        url: str | BrokerURL,
        given: Mapping[str, Any] | None = None,
        use_ssl: bool | Mapping[str, Any] | None = None,
        *,
        username: str | None = None,
        password: str | Callable[[], str] | None = None,
    ) -> Options:
        """Return the options of a connection.

        Arguments:
            url: broker URL.
            given: ``broker_transport_options``.
            use_ssl: ``broker_use_ssl``.
            username: the user, where the URL names none.
            password: the user's password, where the URL names no user.

        Raises:
            ConfigurationError: an option has a value it can't have.
        """
        address = parse(url) if isinstance(url, str) else url
        types = {field.name: str(field.type) for field in fields(cls) if field.name != "hosts"}
        names = types.keys()
        values: dict[str, Any] = {}
        given = merge(typed(address.options, types), given or {})
        for name, value in given.items():
            if name in names:
                values[name] = value
            elif name not in _FOREIGN:
                near = get_close_matches(name, names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                logger.warning("Transport option %r is unknown and has no effect%s", name, hint)
        if values.get("partitions") is not None:
            values["partitions"] = _partitions(values["partitions"])
        values["priority_steps"] = check_steps(values.get("priority_steps", ()))
        bound = values.get("partitions") is not None
        values.setdefault("ordering", "partition" if bound else "none")
        if values["ordering"] not in ORDERINGS:
            raise ConfigurationError(
                f"The ordering {values['ordering']!r} is unknown: use one of "
                f"{', '.join(ORDERINGS)}."
            )
        if values.setdefault("publisher_client", KAFKA_PYTHON) not in PUBLISHER_CLIENTS:
            raise ConfigurationError(
                f"The publisher_client {values['publisher_client']!r} is unknown: use one of "
                f"{', '.join(PUBLISHER_CLIENTS)}."
            )
        for name in (
            "connect_timeout", "commit_interval", "max_buffered", "max_message_bytes",
            "publish_timeout", "session_timeout", "revoke_timeout", "exchange_partitions",
            "exchange_retention", "delay_limit", "delivery_limit",
        ):  # fmt: skip
            if name in values and not values[name] > 0:
                raise ConfigurationError(
                    f"The transport option {name!r} must be above 0, not {values[name]!r}."
                )
        values |= security_values(address, given, use_ssl, username, password)
        return cls(hosts=address.hosts, **values)

    def client_settings(self) -> dict[str, Any]:
        """Return what every client of Kafka's is told: where the brokers are, and how to wait.

        Raises:
            ConfigurationError: a certificate's or a password's file can't be used.
        """
        return {
            "bootstrap_servers": list(self.hosts),
            "client_id": self.client_id,
            "bootstrap_timeout_ms": int(self.connect_timeout * 1000),
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "reconnect_backoff_max_ms": 1000,
            "selector": Selector,
            "proxy_url": DIRECT,
            **self.security_settings(),
        }


def _partitions(value: object) -> tuple[int, ...]:
    listed = [value] if isinstance(value, int) else value
    if not isinstance(listed, list | tuple | set | frozenset) or not listed:
        raise ConfigurationError(
            f"The transport option 'partitions' must be a list of partition numbers, not {value!r}."
        )
    for number in listed:
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise ConfigurationError(
                f"{number!r} in the transport option 'partitions' is not a partition number "
                f"(0, 1, 2, …)."
            )
    return tuple(sorted(set(listed)))
