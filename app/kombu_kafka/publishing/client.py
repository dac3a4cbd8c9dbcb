"""What publishing asks of a client of Kafka's: the small interface that several of them fill.

:mod:`.kafka_python` is what everything else here stands on, :mod:`.librdkafka` the faster one for those who
install it; :mod:`.producer` holds what is the same with both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from ..options import REQUEST_TIMEOUT_MS, Options
from ..record import Headers

__all__ = ("Client", "Confirmation", "request_timeout_ms")

#: How often a client sends a batch again before it reports an error.
RETRIES = 5
#: Between two of them, in milliseconds: five of them outlast the election of a new leader.
RETRY_BACKOFF_MS = 500
#: Milliseconds that a message of a bulk waits for others to leave with, and bytes that wait no longer. A
#: request costs kafka-python ten times what a message does, and a publisher that makes a message every
#: fifth of a millisecond would otherwise get a request for every few.
BULK_LINGER_MS, BULK_BATCH_BYTES = 5, 256 * 1024
#: Seconds in which a topic that the brokers make by themselves appears.
TOPIC_SECONDS = 10.0
#: What a record and its request hold besides the message, in bytes; a dead letter's headers most.
OVERHEAD_BYTES = 65_536
#: A partition added to a topic is seen after this at the latest.
METADATA_MAX_AGE_MS = 30_000


class Confirmation(Protocol):
    """What becomes of one record."""

    def get(self, timeout: float) -> Any:
        """Wait until the record is confirmed, `timeout` seconds at most.

        Raises:
            kafka.errors.KafkaError: it was refused, or not confirmed in time.
        """


class Client(Protocol):
    """An idempotent producer that asks for the confirmation of every in-sync replica (``acks=all``).

    It retries :data:`RETRIES` times and gives a record up after ``publish_timeout``; one that is
    refused fails alone. What it raises is Kafka's (:mod:`kafka.errors`), whatever client it is.
    """

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
    ) -> Confirmation:
        """Take a record, whose topic and partition are there.

        Raises:
            KombuKafkaError: the partition is not there.
            kafka.errors.KafkaError: the topic is not there, or the record can't be taken.
            ValueError, TypeError, AssertionError: it is no record.
        """

    def require(self, topic: str, partition: int | None) -> None:
        """Make sure that a topic, and a partition of it if one is named, are there.

        Raises:
            KombuKafkaError: the partition is not there.
            kafka.errors.KafkaError: the topic is not there, or nothing is known of it.
        """

    def ask(self, question: Callable[..., Any], *args: Any) -> Any:
        """Run a coroutine of requests on the network thread of kafka-python; return what it returns.

        Arguments:
            question: called there with the connection manager and `args`.
            args: anything.

        Raises:
            KafkaError: what the coroutine raised, or that it took longer than ``connect_timeout``.
        """

    @property
    def failed(self) -> bool:
        """Whether the client can send nothing more."""

    def forget(self, topics: Collection[str]) -> None:
        """Ask the brokers for these topics no longer, until something is published to them."""

    def close(self, timeout: float) -> None:
        """Send what is left and end, `timeout` seconds at most; what is not sent then has failed."""


def request_timeout_ms(options: Options) -> int:
    """Return how long a request may take: each try must be over before the message is given up."""
    return min(REQUEST_TIMEOUT_MS, int(options.publish_timeout * 500))
