"""Publishing thousands of messages and waiting once.

A publish returns when every in-sync replica has the message, so a thousand publishes wait a thousand
times. Inside :func:`bulk` none of them waits: their records leave in batches, and the end of the
context waits for all and tells of those that were not confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from kafka.errors import KafkaError
from kombu.exceptions import BatchPublishError

from ..errors import KombuKafkaError, PublishError, publish_error
from ..record import Headers

__all__ = ("Bulk", "BulkPublishError", "Failure", "PublishBatch", "bulk", "current")

#: Seconds more than the client's own limit until a confirmation counts as missing.
PATIENCE_SECONDS = 5.0

_current: ContextVar[Bulk | None] = ContextVar("kombu_kafka_bulk", default=None)


@dataclass(frozen=True)
class Failure:
    """A message that was not confirmed.

    Attributes:
        topic: where it was going.
        id: its header ``id`` (a task's id), or None.
        error: why, as a publish that waits would have raised it.
    """

    topic: str
    id: str | None
    error: KombuKafkaError


class BulkPublishError(PublishError, BatchPublishError):
    """Some messages of a bulk were not confirmed; the others are stored.

    Attributes:
        failures: one for each of them, in the order of publishing.
    """

    def __init__(self, sentence: str, failures: tuple[Failure, ...] = ()) -> None:
        super().__init__(sentence)
        self.failures = failures


class Bulk:
    """The messages published in one context, whose confirmations are still to come."""

    def __init__(self) -> None:
        self._open: list[tuple[Any, str, int | None, Headers, float]] = []

    def __len__(self) -> int:
        """Number of messages not waited for yet."""
        return len(self._open)

    def add(
        self, future: Any, topic: str, partition: int | None, headers: Headers, timeout: float
    ) -> None:
        """Take a record that the client has.

        Arguments:
            future: resolves when the record is confirmed.
            topic: where it goes.
            partition: the partition it was meant for, or None.
            headers: the record's.
            timeout: seconds in which the client confirms it or gives up.
        """
        limit = time.monotonic() + timeout + PATIENCE_SECONDS
        self._open.append((future, topic, partition, headers, limit))

    def wait(self) -> None:
        """Wait until every message is confirmed or has failed.

        Raises:
            BulkPublishError: some were not confirmed.
        """
        waited, self._open = self._open, []
        failures = []
        for future, topic, partition, headers, limit in waited:
            try:
                future.get(timeout=max(0.0, limit - time.monotonic()))
            except KafkaError as exc:
                raw = dict(headers).get("id")
                name = None if raw is None else raw.decode(errors="replace")
                failures.append(Failure(topic, name, publish_error(exc, topic, partition)))
        if failures:
            raise BulkPublishError(
                f"{len(failures)} of {len(waited)} messages published in bulk were not confirmed; "
                f"the first: {failures[0].error}",
                tuple(failures),
            ) from failures[0].error


@contextmanager
def bulk() -> Iterator[Bulk]:
    """Publish without waiting for each message; wait for all at the end.

    It is this thread's (greenlet's, asyncio task's) publishes over any ``kafka://`` connection that
    don't wait, ``task.apply_async`` among them. A bulk inside another waits for its own.

    Raises:
        BulkPublishError: at the end, if messages were not confirmed. Where the context is left by
            an exception, that one is raised, with a note of this.
    """
    batch = Bulk()
    token = _current.set(batch)
    try:
        yield batch
    except BaseException as exc:
        _current.reset(token)
        try:
            batch.wait()
        except BulkPublishError as missing:
            exc.add_note(str(missing))
        raise
    _current.reset(token)
    batch.wait()


def current() -> Bulk | None:
    """Return the bulk that this thread publishes in, or None."""
    return _current.get()


class PublishBatch:
    """What kombu's ``Producer.batch()`` publishes through: messages leave at its end, or when full.

    Arguments:
        channel: publishes them.
        max_size: messages kept before they are sent.
    """

    def __init__(self, channel: Any, max_size: int) -> None:
        self.channel = channel
        self._max_size = max_size
        self._messages: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def publish(self, message: dict[str, Any], **kwargs: Any) -> None:
        """Keep a message; if that makes the batch full, send and confirm all of it."""
        self._messages.append((message, kwargs))
        if len(self._messages) >= self._max_size:
            self.flush()

    def flush(self) -> None:
        """Send what is kept and wait until it is confirmed.

        Raises:
            BulkPublishError: some messages were not confirmed.
        """
        messages, self._messages = self._messages, []
        with bulk():
            for message, kwargs in messages:
                self.channel.basic_publish(message, **kwargs)

    def discard(self) -> None:
        """Forget what was not sent."""
        self._messages.clear()

    def close(self) -> None:
        """Forget what was not sent; kombu flushes before."""
        self.discard()
