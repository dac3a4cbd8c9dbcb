"""Letters out of Kafka and back, byte for byte: one JSON object a line, bytes as base64."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kombu_kafka.options import Options
from scheduler.dlq.desk import Desk
from scheduler.dlq.history import IMPORTED, REPLAYED, SKIPPED, Act
from scheduler.dlq.index import Entry, Index
from scheduler.dlq.letters import LetterId, LetterIdError
from scheduler.dlq.outgoing import Outgoing
from scheduler.dlq.reader import Reader
from scheduler.dlq.replay import BATCH, Order, Outcome

__all__ = ["FORMAT", "Line", "LineError", "export", "import_lines", "parse"]

#: What the first field of a line says.
FORMAT = "celery-dead-letter/1"


class LineError(ValueError):
    """A line is no letter; the sentence says which and why."""


@dataclass(frozen=True)
class Line:
    """A letter as exported.

    Attributes:
        id: Where it lay.
        topic: In which dead letter topic.
        state: What it was then.
        key: The record's key.
        value: The record's value.
        headers: All headers, the letter's own included.
    """

    id: LetterId
    topic: str
    state: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def digest(self) -> bytes:
        """What is the same for the same letter, wherever it lies."""
        return _digest(self.key, self.value, self.headers)


def export(reader: Reader, topic: str, entries: Iterable[Entry]) -> Iterator[str]:
    """Yield a line for each letter, in the order they lie."""
    chosen: dict[tuple[int, int], Entry] = {entry.letter.id: entry for entry in entries}
    for record in reader.records(topic, chosen):
        entry = chosen[record.partition, record.offset]
        yield json.dumps(
            {
                "format": FORMAT,
                "topic": topic,
                "id": str(entry.letter.id),
                "state": entry.state,
                "task": entry.letter.task,  # for people; what counts is in the headers
                "key": _encode(record.key),
                "value": _encode(record.value),
                "headers": [[name, _encode(value)] for name, value in record.headers],
                "acts": [act.as_dict() for act in entry.acts],
            }
        )


def parse(text: str, number: int) -> Line:
    """Read an exported line.

    Raises:
        LineError: It is none.
    """
    try:
        data: Any = json.loads(text)
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r}, not {FORMAT!r}")
        return Line(
            id=LetterId.parse(data["id"]),
            topic=str(data["topic"]),
            state=str(data["state"]),
            key=_decode(data["key"]),
            value=_decode(data["value"]),
            headers=tuple((str(name), _decode(raw) or b"") for name, raw in data["headers"]),
        )
    except (ValueError, KeyError, TypeError, LetterIdError, RecursionError) as exc:
        why = f"it has no {exc}" if isinstance(exc, KeyError) else str(exc)
        if isinstance(exc, json.JSONDecodeError):
            why = "it is not JSON"
        raise LineError(f"Line {number} is no exported letter: {why}.") from exc


def import_lines(
    options: Options, reader: Reader, index: Index, lines: list[Line], order: Order
) -> Outcome:
    """Write exported letters back; those that are there, or were dealt with, are left out.

    Raises:
        BrokerUnavailableError: The brokers don't answer; run again, nothing is written twice.
    """
    outcome = Outcome()
    index.refresh(letters=False)
    with Desk(options, reader, index.history) as desk:
        # Read only now: nobody else can write letters back meanwhile.
        known = {
            _digest(record.key, record.value, record.headers)
            for record in reader.read(reader.bounds(index.topic))
        }
        for start in range(0, len(lines), BATCH):
            batch: list[tuple[LetterId, Outgoing, Act]] = []
            for line in lines[start : start + BATCH]:
                why_not = "" if order.force else _why_not(line, known, index)
                if why_not:
                    outcome.refused.append((line.id, why_not))
                    continue
                known.add(line.digest)
                record = Outgoing(index.topic, None, line.key, line.value, list(line.headers))
                act = Act(
                    act=IMPORTED, by=order.by, at=time.time(), why=order.why,
                    note=f"was {line.id} of {line.topic}",
                )  # fmt: skip
                batch.append((line.id, record, act))
            if batch and not order.dry_run:
                places = desk.write_letters([(record, act) for _, record, act in batch])
                outcome.done += [
                    (line, f"{index.topic} {place}")
                    for (line, _, _), place in zip(batch, places, strict=True)
                ]
            else:
                outcome.done += [(line, index.topic) for line, _, _ in batch]
    return outcome


def _why_not(line: Line, known: set[bytes], index: Index) -> str:
    if line.digest in known:
        return "it is there already"
    if line.state in (REPLAYED, SKIPPED):
        return f"it was {line.state} when it was exported: --force imports it all the same"
    if line.topic == index.topic and index.history.state(line.id) != "new":
        return f"it was {index.history.state(line.id)} since: --force imports it all the same"
    return ""


def _digest(
    key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]
) -> bytes:
    digest = hashlib.sha256()
    parts = [key, value]
    for name, raw in headers:
        parts += [name.encode(errors="surrogatepass"), raw or b""]
    for part in parts:
        digest.update(b"-" if part is None else b"%d:" % len(part) + part)
    return digest.digest()


def _encode(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()


def _decode(text: Any) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
