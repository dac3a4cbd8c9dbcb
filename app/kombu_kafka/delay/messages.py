"""Later: which level of the delay topic a message waits in, and how it is told where to go.

A message that is due later lies in the delay topic. What lies in its partition *k*, the level,
waits ``0.1 * 2**k`` seconds from the time at which the broker appended it; then a
:mod:`~kombu_kafka.delay.dispatcher` forwards it to a lower level or, when it is due, to its own topic.
The record is what a direct publish would have written, and three headers more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord

from ..errors import PublishError
from ..options import Options
from ..publishing import producer
from ..record import Headers
from . import topics as delay_topics

__all__ = (
    "BASE_MS",
    "LEVELS",
    "Delayed",
    "UndeliverableError",
    "due_of",
    "level_of",
    "publish",
    "read",
    "wait_ms",
)

#: What the finest level waits, in milliseconds: the precision of all.
BASE_MS = 100
#: Number of levels; the last one waits 39 days.
LEVELS = delay_topics.LEVELS

#: Header: the topic the message is for.
TOPIC = "delay-topic"
#: Header: its partition there, where the publisher named one.
PARTITION = "delay-partition"
#: Header: when it is due, milliseconds since the epoch. Without it ``eta`` says.
UNTIL = "delay-until"
_OURS = frozenset({TOPIC, PARTITION, UNTIL})


class UndeliverableError(ValueError):
    """A record of the delay topic that can't be forwarded; the sentence says why."""


@dataclass(frozen=True)
class Delayed:
    """A record of the delay topic, read.

    Attributes:
        record: as it lies there.
        topic: where it goes.
        partition: the partition there, or None where the key decides.
        due: when, milliseconds since the epoch.
        headers: the message's own headers.
    """

    record: ConsumerRecord
    topic: str
    partition: int | None
    due: int
    headers: Headers

    def header(self, name: str) -> bytes | None:
        """Return the value of one of the message's headers, None without it."""
        return next((value for key, value in self.headers if key == name), None)


def wait_ms(level: int) -> int:
    """Return how long a level waits, in milliseconds."""
    return BASE_MS << level


def level_of(remaining: int) -> int:
    """Return the level for a message that has `remaining` milliseconds to wait.

    It is the highest one that waits no longer, or the finest where none is as short.
    """
    return max(1, min(LEVELS, (max(0, remaining) // BASE_MS).bit_length())) - 1


def due_of(headers: Mapping[str, Any]) -> int | None:
    """Return when a message is due, by its header ``eta``, in milliseconds since the epoch.

    Returns:
        None without an ETA, or with one that only the worker can make sense of: no date, or one
        without a time zone.
    """
    eta = headers.get("eta")
    if not isinstance(eta, str):
        return None
    try:
        moment = datetime.fromisoformat(eta)
        return math.ceil(moment.timestamp() * 1000) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def publish(
    options: Options,
    topic: str,
    value: bytes,
    *,
    due: int,
    key: bytes | None = None,
    headers: Headers | None = None,
    partition: int | None = None,
    confirm: bool = True,
) -> None:
    """Publish a message to be forwarded to `topic` when it is due.

    One that is due within the precision of the levels goes straight there.

    Raises:
        KombuKafkaError: the message is not stored, or that is not known; also where it is due
            after more than ``delay_limit``.
    """
    client = producer.shared(options)
    remaining = due - int(time.time() * 1000)
    headers = list(headers or [])
    if options.delay_topic is None or remaining < BASE_MS:
        client.publish(topic, value, key=key, headers=headers, partition=partition, confirm=confirm)
        return
    if remaining > options.delay_limit * 1000:
        raise PublishError(
            f"The message for {topic} is due in {remaining / 86_400_000:.1f} days, and at most "
            f"{options.delay_limit / 86_400:g} are allowed: publish it later, or raise the "
            f"transport option 'delay_limit' (seconds) of publishers and workers."
        )
    # The publisher hears of a wrong target now; nobody listens when it is forwarded.
    client.require(topic, partition)
    delay_topics.ensure(options)
    client.publish(
        options.delay_topic,
        value,
        key=key,
        headers=headers + describe(topic, partition, due),
        partition=level_of(remaining),
        confirm=confirm,
    )


def describe(topic: str, partition: int | None, due: int) -> Headers:
    """Return the headers that say where a message goes, and when."""
    headers = [(TOPIC, topic.encode()), (UNTIL, str(due).encode())]
    if partition is not None:
        headers.append((PARTITION, str(partition).encode()))
    return headers


def read(record: ConsumerRecord) -> Delayed:
    """Read a record of the delay topic.

    Raises:
        UndeliverableError: it doesn't say where it goes, or when.
    """
    ours = {name: value for name, value in record.headers or () if name in _OURS}
    topic = _text(ours, TOPIC)
    if not topic:
        raise UndeliverableError(f"the record has no header {TOPIC!r} that names its topic")
    if record.value is None:
        raise UndeliverableError("the record has no value (a tombstone), so no message body")
    partition = _number(ours, PARTITION)
    due = _number(ours, UNTIL)
    if due is None:
        due = due_of({"eta": _eta(record.headers or ())})
    if due is None:
        raise UndeliverableError(
            f"neither the header {UNTIL!r} (milliseconds since the epoch) nor 'eta' (ISO 8601 with "
            f"a time zone) says when the record is due"
        )
    return Delayed(record, topic, partition, due, own_headers(record))


def own_headers(record: ConsumerRecord) -> Headers:
    """Return a record's headers without those that this module adds."""
    return [(name, value or b"") for name, value in record.headers or () if name not in _OURS]


def _eta(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    for name, value in headers:
        if name == "eta":
            return (value or b"").decode(errors="replace")
    return None


def _text(headers: Mapping[str, bytes | None], name: str) -> str:
    try:
        return (headers.get(name) or b"").decode()
    except UnicodeDecodeError as exc:
        raise UndeliverableError(f"the header {name!r} is not UTF-8 ({exc.reason})") from exc


def _number(headers: Mapping[str, bytes | None], name: str) -> int | None:
    if name not in headers:
        return None
    text = _text(headers, name)
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise UndeliverableError(f"the header {name!r} must be a whole number, not {text!r}")
    return int(text)
