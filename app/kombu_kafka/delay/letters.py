"""What becomes of a delayed message that can't, or must not, arrive."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from kafka.consumer.fetcher import ConsumerRecord

from ..options import Options
from ..publishing.dead_letters import HEADER_PREFIX, Letter, letter_headers
from ..record import Headers
from .forwarder import Outgoing
from .messages import Delayed

__all__ = ("Refusal", "expired", "letter")

#: An ``expires`` that has always passed.
_LONG_AGO = b"1970-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class Refusal:
    """Why a record can't be forwarded.

    Attributes:
        reason: in one word that programs can match.
        message: in a sentence.
        attempts: how often its letter was refused.
    """

    reason: str
    message: str
    attempts: int = 0

    def again(self) -> Refusal:
        """The letter was refused once more."""
        return replace(self, attempts=self.attempts + 1)


def letter(
    options: Options, record: ConsumerRecord, delayed: Delayed | None, refusal: Refusal
) -> Outgoing:
    """Return the dead letter of a record.

    Where it is known what the message was for, the letter holds that message and names its topic,
    so that it can be replayed there; else it holds the record of the delay topic.
    """
    headers = letter_headers(
        Letter(record, refusal.reason, {"message": refusal.message}), time.time()
    )
    count = int(dict(headers)[f"{HEADER_PREFIX}header-count"])
    own, about = headers[:count], dict(headers[count:])
    if delayed is not None:
        own = delayed.headers
        for name in ("partition", "offset"):
            about[f"{HEADER_PREFIX}delay-{name}"] = about.pop(HEADER_PREFIX + name)
        about[f"{HEADER_PREFIX}topic"] = delayed.topic.encode()
        if delayed.partition is not None:
            about[f"{HEADER_PREFIX}partition"] = str(delayed.partition).encode()
    value, key = record.value or b"", record.key
    omitted = ((), ("value",), ("value", "key", "headers"))[min(refusal.attempts, 2)]
    for part in omitted:
        about[f"{HEADER_PREFIX}{part}-omitted"] = b"too large"
    kept = [] if "headers" in omitted else own
    about[f"{HEADER_PREFIX}header-count"] = str(len(kept)).encode()
    return Outgoing(
        options.dead_letter_topic,
        b"" if "value" in omitted else value,
        None if "key" in omitted else key,
        [*kept, *about.items()],
    )


def expired(headers: Headers) -> Headers:
    """Return a message's headers such that whoever gets it discards it as expired."""
    kept = [(name, value) for name, value in headers if name != "expires"]
    return [*kept, ("expires", _LONG_AGO)]
