"""A dead letter as it lies in its topic, taken apart. All of it is data: text and bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from kombu_kafka.publishing.dead_letters import HEADER_PREFIX, REPLAYS, replays_of

__all__ = ["Letter", "LetterId", "LetterIdError", "from_record"]

#: The header after which a letter's own headers begin.
HEADER_COUNT = HEADER_PREFIX + "header-count"

#: What is too long for a list, and known from the letter itself.
_LONG = ("traceback",)


class LetterIdError(ValueError):
    """A text is no letter's id."""


class LetterId(NamedTuple):
    """Where a letter lies in the dead letter topic; written `3-1042`."""

    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> LetterId:
        """Read an id; raise `LetterIdError` if it is none."""
        found = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,18})", text.strip())
        if found is None:
            raise LetterIdError(
                f"{text!r} is no id of a letter: write partition and offset, for example 3-1042."
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.partition}-{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    Attributes:
        id: Where it lies.
        written_at: When it was written, in seconds since the epoch.
        key: The original record's key.
        value: The original record's value; None where it had none, or in a `light` letter.
        size: Bytes of the value.
        headers: The original record's headers, in their order.
        about: What is known of the failure, by name without the prefix `dlq-`.
    """

    id: LetterId
    written_at: float
    key: bytes | None
    value: bytes | None
    size: int
    headers: tuple[tuple[str, bytes | None], ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def task(self) -> str:
        return self.about.get("task") or self.text("task")

    @property
    def task_id(self) -> str:
        return self.about.get("task-id") or self.text("id")

    @property
    def reason(self) -> str:
        return self.about.get("reason", "")

    @property
    def exception(self) -> str:
        return self.about.get("exception", "")

    @property
    def message(self) -> str:
        return self.about.get("message", "")

    @property
    def kind(self) -> str:
        """`passing`, `hard`, or nothing where the task has not said."""
        return self.about.get("kind", "")

    @property
    def topic(self) -> str:
        """The topic it was consumed from, or nothing."""
        return self.about.get("topic", "")

    @property
    def partition(self) -> int | None:
        """The partition it was consumed from."""
        return self._whole("partition")

    @property
    def offset(self) -> int | None:
        """Its offset there."""
        return self._whole("offset")

    @property
    def timestamp(self) -> int | None:
        """The original record's time, in milliseconds since the epoch."""
        return self._whole("timestamp")

    @property
    def failed_at(self) -> float:
        """When it failed, in seconds since the epoch."""
        return self._seconds("failed-at") or self.written_at

    @property
    def first_failed_at(self) -> float:
        """When it failed first, before any replay."""
        return self._seconds("first-failed-at") or self.failed_at

    @property
    def replays(self) -> int:
        """How often it had been replayed when it failed."""
        return replays_of(
            {REPLAYS: self.about["replays"].encode()} if "replays" in self.about else {}
        )

    @property
    def attempts(self) -> int | None:
        return self._whole("attempts")

    @property
    def omitted(self) -> tuple[str, ...]:
        """Parts of the record that were too large for the dead letter topic."""
        return tuple(
            part for part in ("value", "key", "headers") if f"{part}-omitted" in self.about
        )

    @property
    def key_text(self) -> str:
        return "" if self.key is None else self.key.decode(errors="replace")

    @property
    def content_type(self) -> str:
        return self.text("content-type") or "application/json"

    def text(self, name: str) -> str:
        """A header of the original record as text; nothing where it has none."""
        for known, raw in reversed(self.headers):
            if known == name:
                return (raw or b"").decode(errors="replace")
        return ""

    def light(self) -> Letter:
        """This letter without what is large: value, traceback, the record's headers."""
        about = {name: text for name, text in self.about.items() if name not in _LONG}
        about.setdefault("task", self.task)
        about.setdefault("task-id", self.task_id)
        return replace(self, value=None, headers=(), about=about)

    def _whole(self, name: str) -> int | None:
        text = self.about.get(name, "")
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None

    def _seconds(self, name: str) -> float | None:
        text = self.about.get(name, "")
        return float(text) if re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,9})?", text) else None


def from_record(record: Any) -> Letter:
    """Take a record of the dead letter topic apart, whoever wrote it."""
    headers: list[tuple[str, bytes | None]] = list(record.headers or ())
    count = _header_count(headers)
    if count is None:  # an older letter, or nobody's
        ours = [pair for pair in headers if pair[0].startswith(HEADER_PREFIX)]
        original = [pair for pair in headers if not pair[0].startswith(HEADER_PREFIX)]
    else:
        original, ours = headers[:count], headers[count:]
    about = {
        name.removeprefix(HEADER_PREFIX): (raw or b"").decode(errors="replace")
        for name, raw in ours
        if name.startswith(HEADER_PREFIX)
    }
    for place in about.get("null-headers", "").split(","):
        if place.isdecimal() and place.isascii() and int(place) < len(original):
            original[int(place)] = (original[int(place)][0], None)
    value = None if about.get("null-value") == "true" else record.value
    return Letter(
        id=LetterId(record.partition, record.offset),
        written_at=record.timestamp / 1000,
        key=record.key,
        value=value,
        size=len(value or b""),
        headers=tuple(original),
        about=about,
    )


def _header_count(headers: list[tuple[str, bytes | None]]) -> int | None:
    for name, raw in reversed(headers):
        if name == HEADER_COUNT:
            text = raw or b""
            if text.isdigit() and len(text) < 6 and int(text) <= len(headers):
                return int(text)
            return None
    return None
