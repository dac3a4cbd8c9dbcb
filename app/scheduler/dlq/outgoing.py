"""The record that a letter's replay sends: the original, or what a person made of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from kombu_kafka.publishing.dead_letters import FIRST_FAILED_AT, HEADER_PREFIX, REPLAYS
from kombu_kafka.record import Headers
from scheduler.dlq.history import Act
from scheduler.dlq.index import Entry
from scheduler.dlq.letters import Letter
from scheduler.dlq.reader import Reader

__all__ = ["MAX_REPLAYS", "Changes", "Outgoing", "Refusal", "guard", "outgoing", "whole"]

#: A letter that was replayed this often and failed again is replayed by force only.
MAX_REPLAYS = 3

#: Headers that a replay puts in place of the record's own of that name.
REPLAY_HEADERS = (REPLAYS, FIRST_FAILED_AT, HEADER_PREFIX + "letter")


class Refusal(Exception):  # noqa: N818 (it is no error of the program: a letter is left as it was)
    """A letter is not replayed; the sentence says why and what would do."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a replay does otherwise than before; by default it changes nothing.

    Attributes:
        topic: Where it goes instead of its own topic.
        partition: Which partition there.
        by_key: Let the key choose the partition, as a producer would today.
        args: Positional arguments in place of the task's own.
        kwargs: Keyword arguments likewise.
        without_expiry: Drop the time after which a worker would not run it.
        reset_retries: Let the task retry as often as if it were new.
    """

    topic: str | None = None
    partition: int | None = None
    by_key: bool = False
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    without_expiry: bool = False
    reset_retries: bool = False

    @property
    def edits(self) -> bool:
        """Whether the arguments are other ones."""
        return self.args is not None or self.kwargs is not None

    @property
    def note(self) -> str:
        """What was different, for the history."""
        noted = {
            "edited": self.edits,
            "without expiry": self.without_expiry,
            "retries reset": self.reset_retries,
        }
        return ", ".join(name for name, said in noted.items() if said)


@dataclass(frozen=True)
class Outgoing:
    """A record to be sent."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def where(self) -> str:
        return self.topic if self.partition is None else f"{self.topic}-{self.partition}"


def guard(entry: Entry, *, force: bool) -> None:
    """Refuse to do again what was done, and to go on for ever.

    Raises:
        Refusal: The letter was replayed or skipped, or replayed too often before; not under `force`.
    """
    if force:
        return
    if entry.state != "new":
        last: Act = [act for act in entry.acts if act.act == entry.state][-1]
        raise Refusal(
            f"it was {last.act} by {last.by} at {moment(last.at)}: --force replays it once more"
        )
    if entry.letter.replays >= MAX_REPLAYS:
        raise Refusal(
            f"it was replayed {entry.letter.replays} times and failed each time: mend the cause,"
            " then use --force"
        )


def whole(letter: Letter, reader: Reader) -> Letter:
    """Return the letter with its record whole, fetched from where it lies if it was too large.

    Raises:
        Refusal: The record is not to be had.
    """
    if "unreadable" in letter.about:
        raise Refusal(
            "Kafka's client could not read the record, the letter says only where it lies:"
            f" offset {letter.offset} of {letter.topic}-{letter.partition}"
        )
    if not letter.omitted:
        return letter
    where = f"offset {letter.offset} of {letter.topic}-{letter.partition}"
    if letter.partition is not None and letter.offset is not None:
        place = (letter.partition, letter.offset)
        for record in reader.records(letter.topic, [place]):
            if record.timestamp == letter.timestamp:
                return replace(
                    letter, key=record.key, value=record.value, headers=tuple(record.headers)
                )
    raise Refusal(
        f"the record was too large for the dead letter topic, and at {where} it is no more:"
        " queue the task anew"
    )


def outgoing(letter: Letter, changes: Changes, now: float) -> Outgoing:
    """Return what a replay of a whole letter sends.

    Args:
        letter: With all of its record.
        changes: What is to be different.
        now: Seconds since the epoch.

    Raises:
        Refusal: It can't be sent like that.
    """
    topic = changes.topic or letter.topic
    if not topic:
        raise Refusal("it does not say which topic it came from: name one with --to-topic")
    if letter.value is None and letter.key is None:
        raise Refusal("its record has neither key nor value, so there is nothing to replay")
    partition = changes.partition
    if partition is None and not changes.by_key and topic == letter.topic:
        partition = letter.partition
    headers = [(name, raw or b"") for name, raw in letter.headers if name not in REPLAY_HEADERS]
    if changes.without_expiry:
        headers = [one for one in headers if one[0] not in ("expires", "amqp-expiration")]
    elif _expired(letter.text("expires"), now):
        raise Refusal(
            f"it expired at {letter.text('expires')[:40]}, so a worker would drop it:"
            " --without-expiry takes that time away"
        )
    if changes.reset_retries:
        headers = [(name, b"0" if name == "retries" else raw) for name, raw in headers]
    value = letter.value
    if changes.edits:
        value, headers = _edited(letter, headers, changes)
    headers += [
        (REPLAYS, str(letter.replays + 1).encode()),
        (FIRST_FAILED_AT, f"{letter.first_failed_at:.3f}".encode()),
        (HEADER_PREFIX + "letter", str(letter.id).encode()),
    ]
    return Outgoing(topic, partition, letter.key, value, headers)


def moment(seconds: float) -> str:
    """Say a moment in local time, to the second."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def _edited(letter: Letter, headers: Headers, changes: Changes) -> tuple[bytes, Headers]:
    if letter.content_type == "application/data":
        raise Refusal("its message is signed, and other arguments would not verify: queue it anew")
    if letter.content_type != "application/json" or letter.text("compression"):
        raise Refusal(
            f"its body is {letter.content_type}"
            f"{', compressed' if letter.text('compression') else ''}: only JSON can be edited"
        )
    try:
        args, kwargs, embed = json.loads(letter.value or b"")
    except (ValueError, TypeError, RecursionError):
        raise Refusal(
            "its body is no task's [args, kwargs, embed], so it can't be edited"
        ) from None
    args = args if changes.args is None else changes.args
    kwargs = kwargs if changes.kwargs is None else changes.kwargs
    shown = {"argsrepr": repr(tuple(args)), "kwargsrepr": repr(kwargs)}
    headers = [
        (name, shown[name].encode(errors="replace")[:1024] if name in shown else raw)
        for name, raw in headers
    ]
    return json.dumps([args, kwargs, embed]).encode(), headers


def _expired(text: str, now: float) -> bool:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return False
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() < now
