"""Where a message of an exchange lies, and who may have it: rules without any state.

Every process works these out alone and comes to the same answer: a publisher needs nobody to tell
it where a reader looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from zlib import crc32

from ..errors import UnsupportedError

__all__ = (
    "DIRECT", "EXCHANGE_TYPES", "FANOUT", "REPLY_TOPIC", "TOPIC", "exchange_topic", "header",
    "is_reply_queue", "is_transient", "matches", "partition_of", "partitions_read",
    "require_type", "topic_name",
)  # fmt: skip

DIRECT, FANOUT, TOPIC = "direct", "fanout", "topic"

#: The exchange types of AMQP that this transport has; ``headers`` it has not.
EXCHANGE_TYPES = frozenset({DIRECT, FANOUT, TOPIC})

#: Where replies to queues that are bound to nothing lie (the default exchange; ``rpc://``).
REPLY_TOPIC = "reply.celery"

#: Celery's own exchanges: their topics bear their names.
_CELERYS = re.compile(r"(reply\.)?[^.]+\.pidbox|celeryev")

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_REPLY_QUEUE = re.compile(rf"(amq\.gen-)?{_UUID}")

_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]")


def is_transient(*, exclusive: bool, auto_delete: bool) -> bool:
    """Whether a queue declared so has no topic of its own.

    It goes with whoever consumes it, so nobody will ever look for what it held. ``durable=False``
    alone says only that a queue may be lost with its broker: others share it, and it keeps its
    messages while nobody consumes. Such a queue has a topic like any other.
    """
    return exclusive or auto_delete


def is_reply_queue(queue: str) -> bool:
    """Whether a queue's name says that it takes replies: a UUID, or AMQP's ``amq.gen-`` and a UUID.

    The publisher of a reply (a worker of ``rpc://`` results) knows nothing of the queue but its
    name. No queue that is not transient may bear such a name, so the name is enough.
    """
    return _REPLY_QUEUE.fullmatch(queue) is not None


def topic_name(name: str) -> str:
    """Return a name that Kafka takes for a topic: `name` itself where that is one."""
    legal = _ILLEGAL.sub("_", name)
    if legal == name and name not in (".", ".."):
        return name
    return f"{legal}-{crc32(name.encode()):08x}"


def exchange_topic(exchange: str) -> str:
    """Return the topic in which an exchange's messages lie for queues without one of their own.

    Queues are often called like their exchange, and this topic forgets in minutes. So it never
    bears the name of a queue's: Celery's own exchanges excepted, it ends in ``.exchange``.
    """
    if not exchange:
        return REPLY_TOPIC
    if _CELERYS.fullmatch(exchange):
        return topic_name(exchange)
    return topic_name(f"{exchange}.exchange")


def require_type(exchange: str, kind: str) -> None:
    """Check an exchange's type.

    Raises:
        UnsupportedError: this transport has no such exchanges.
    """
    if kind not in EXCHANGE_TYPES:
        raise UnsupportedError(
            f"The exchange {exchange!r} can't be of type {kind!r}: this transport has "
            f"{', '.join(sorted(EXCHANGE_TYPES))} exchanges."
        )


def partition_of(kind: str, routing_key: str, partitions: int) -> int:
    """Return the partition that a message lies in.

    Direct: by its whole routing key, so that who waits for one key reads few others. Topic: by its
    first word, so that ``worker.*`` and ``task.*`` lie apart. Fanout: the first one, since
    everybody reads everything.
    """
    if kind == FANOUT:
        return 0
    decisive = routing_key.split(".", 1)[0] if kind == TOPIC else routing_key
    return crc32(decisive.encode()) % partitions


def partitions_read(kind: str, binding_key: str, partitions: int) -> tuple[int, ...]:
    """Return the partitions in which messages that match a binding can lie."""
    if kind == TOPIC and binding_key.split(".", 1)[0] in ("#", "*"):
        return tuple(range(partitions))
    return (partition_of(kind, binding_key, partitions),)


def matches(kind: str, binding_key: str, routing_key: str | None) -> bool:
    """Whether a message with this routing key is for a queue bound so.

    Arguments:
        kind: the exchange's type.
        binding_key: what the queue is bound with; in a topic exchange ``*`` is one word and ``#``
            any number, none included.
        routing_key: the message's, or None where a foreign producer gave none.
    """
    if kind == FANOUT:
        return True
    if routing_key is None:
        return False
    if kind == DIRECT:
        return binding_key == routing_key
    return _words_match(binding_key.split("."), routing_key.split("."))


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        rest = pattern[1:]
        return any(_words_match(rest, words[skip:]) for skip in range(len(words) + 1))
    return (
        bool(words)
        and pattern[0] in ("*", words[0])
        and _words_match(pattern[1:], words[1:])
    )  # fmt: skip


def header(headers: Iterable[tuple[str, bytes | None]], name: str) -> str | None:
    """Return a record's header as text, or None where it has none."""
    for found, value in headers:
        if found == name and value is not None:
            return value.decode(errors="replace")
    return None
