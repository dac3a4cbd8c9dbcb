"""Messages that are not wanted any more when their time is up (AMQP's time to live).

Time counts from the record's timestamp. An expired message is dropped when it would be delivered; it
counts as done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ("QUEUE_ARGUMENT", "expires_at", "queue_ttl")

#: The queue argument that limits every message of a queue, in milliseconds.
QUEUE_ARGUMENT = "x-message-ttl"


def queue_ttl(arguments: Mapping[str, Any] | None) -> int | None:
    """Return the time to live that a queue's arguments give its messages, in milliseconds."""
    ttl = (arguments or {}).get(QUEUE_ARGUMENT)
    return None if ttl is None else int(ttl)


def expires_at(timestamp: int, expiration: object, ttl: int | None) -> int | None:
    """Return when a message expires, or None if it never does.

    Arguments:
        timestamp: the record's, in milliseconds since the epoch; -1 where it has none.
        expiration: the message's property, milliseconds as text, or None.
        ttl: what its queue says, in milliseconds, or None.

    Returns:
        Milliseconds since the epoch.

    Raises:
        ValueError: `expiration` is no number of milliseconds.
    """
    limits = [] if ttl is None else [ttl]
    if expiration is not None:
        if not isinstance(expiration, str | int) or not str(expiration).isdecimal():
            raise ValueError(f"{expiration!r} is no number of milliseconds")
        limits.append(int(expiration))
    if not limits or timestamp < 0:
        return None
    return timestamp + min(limits)
