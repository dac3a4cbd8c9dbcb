"""The native record: how a message lies in Kafka (described for others in docs/record-format.md).

The record's value is the message body's bytes as serialized, its key the partition key, its
headers the message's headers. Header values are UTF-8 text; a value that is not text is JSON and
its name is listed in the header ``json-headers``, so that anybody's producer can write plain
text and nothing is guessed. AMQP properties are headers prefixed ``amqp-``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord

from .task_headers import TEXTS, TYPED, fault

__all__ = (
    "DEFAULT_CONTENT_ENCODING",
    "DEFAULT_CONTENT_TYPE",
    "PROPERTY_DEFAULTS",
    "UNREADABLE",
    "Envelope",
    "Headers",
    "UndecodableRecordError",
    "decode",
    "encode_headers",
    "is_task",
)

Headers = list[tuple[str, bytes]]

#: What a record without the header ``content-type`` is taken for.
DEFAULT_CONTENT_TYPE = "application/json"
#: What a record without the header ``content-encoding`` is taken for.
DEFAULT_CONTENT_ENCODING = "utf-8"

#: Header of what stands in for a record that Kafka's client can't parse.
UNREADABLE = "dlq-unreadable"

#: What the encoding of JSON may be called; kombu would take it for UTF-8 whatever it is called.
_JSON_ENCODINGS = ("utf-8", "utf8", "ascii", "us-ascii", "binary")

_CONTENT_TYPE = "content-type"
_CONTENT_ENCODING = "content-encoding"
_JSON_HEADERS = "json-headers"
_PROPERTY = "amqp-"

#: Properties that travel. The rest belongs to one connection (delivery tag) or is Kafka's (key).
_PROPERTIES = ("correlation_id", "reply_to", "priority", "delivery_mode", "expiration",
               "exchange", "routing_key")  # fmt: skip
#: What these are where a record does not tell: said by no header, since nearly every message has them.
PROPERTY_DEFAULTS = {"priority": 0, "delivery_mode": 2}
_PROPERTY_KINDS: dict[str, type] = {
    name: int if name in PROPERTY_DEFAULTS else str for name in _PROPERTIES
}

#: Number of headers, and length of ``json-headers``, up to which it is remembered how to read such records.
MAX_HEADERS, MAX_LISTED = 64, 2000

#: One for all headers: `json.dumps` would make one for each, because of `separators`.
_compact = json.JSONEncoder(separators=(",", ":")).encode


class UndecodableRecordError(ValueError):
    """A record is no message; the sentence says why."""


@dataclass
class Envelope:
    """What a record says, apart from its body.

    Attributes:
        headers: the message's headers.
        properties: AMQP's properties.
        content_type: MIME type of the body.
        content_encoding: encoding of the body.
    """

    headers: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    content_type: str = DEFAULT_CONTENT_TYPE
    content_encoding: str = DEFAULT_CONTENT_ENCODING


def encode_headers(
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
    content_type: str | None,
    content_encoding: str | None,
) -> Headers:
    """Return a message's headers and properties as record headers.

    Raises:
        ValueError: a header's value is neither text nor anything JSON can hold.
    """
    encoded: Headers = [
        (_CONTENT_TYPE, (content_type or DEFAULT_CONTENT_TYPE).encode()),
        (_CONTENT_ENCODING, (content_encoding or DEFAULT_CONTENT_ENCODING).encode()),
    ]
    as_json = []
    pairs = [(str(name), value) for name, value in headers.items()]
    pairs += [
        (_PROPERTY + name, value)
        for name in _PROPERTIES
        if (value := properties.get(name)) != PROPERTY_DEFAULTS.get(name)
    ]
    for name, value in pairs:
        if value is None:
            continue
        if isinstance(value, str):
            encoded.append((name, value.encode()))
            continue
        try:
            encoded.append((name, _compact(value).encode()))
        except (TypeError, ValueError) as exc:
            raise ValueError(
                f"the header {name!r} holds a {type(value).__name__}, which is neither text nor "
                f"JSON ({exc})"
            ) from exc
        as_json.append(name)
    if as_json:
        encoded.append((_JSON_HEADERS, ",".join(as_json).encode()))
    return encoded


def decode(headers: Iterable[tuple[str, bytes | None]] | None, value: bytes | None) -> Envelope:
    """Read a record's headers.

    Arguments:
        headers: the record's headers.
        value: the record's value, of which only the presence is looked at.

    Raises:
        UndecodableRecordError: the record is no message.
    """
    if value is None:
        raise UndecodableRecordError(_no_value(dict(headers or ())))
    read: dict[str, Any] = _texts(headers or ())
    listed = read.pop(_JSON_HEADERS, "")
    content_type = read.pop(_CONTENT_TYPE, DEFAULT_CONTENT_TYPE)
    content_encoding = read.pop(_CONTENT_ENCODING, DEFAULT_CONTENT_ENCODING)
    # Anybody may write records with others' shapes, a hundred thousand headers each: those are not kept.
    usual = len(read) <= MAX_HEADERS and len(listed) <= MAX_LISTED
    shape = (_shape if usual else _shape.__wrapped__)(tuple(read), listed)
    for name in shape.as_json:
        read[name] = _parse(name, read[name])
    properties = {short: read.pop(name) for name, short in shape.properties}
    if content_type == DEFAULT_CONTENT_TYPE and content_encoding.lower() not in _JSON_ENCODINGS:
        raise UndecodableRecordError(
            f"the header 'content-encoding' is {content_encoding!r:.100}, and JSON is UTF-8"
        )
    for name, found in properties.items():
        if found is not None and type(found) is not _PROPERTY_KINDS.get(name, type(found)):
            _check_property(name, found)
    if "task" in read and (sentence := fault(read, shape.texts_as_json)):
        raise UndecodableRecordError(sentence)
    return Envelope(read, properties, content_type, content_encoding)


def is_task(record: ConsumerRecord) -> bool:
    """Whether a record, readable or not, asks for a task to be run."""
    return any(name == "task" for name, _ in record.headers)


def _no_value(headers: Mapping[str, bytes | None]) -> str:
    unreadable = headers.get(UNREADABLE)
    if unreadable is None:
        return "the record has no value (a tombstone), so no message body"
    return f"Kafka's client can't read the record ({unreadable.decode(errors='replace')})"


def _texts(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    headers = tuple(headers)
    try:
        return {name: raw.decode() if raw else "" for name, raw in headers}
    except UnicodeDecodeError as exc:
        name = next(name for name, raw in headers if raw == exc.object)
        raise UndecodableRecordError(f"the header {name!r} is not UTF-8 ({exc.reason})") from exc


@dataclass(frozen=True, slots=True)
class _Shape:
    """How to read the headers of records that have the same ones.

    Attributes:
        as_json: those that hold JSON.
        texts_as_json: those of them that a task has as text.
        properties: those that are properties, and what these are called.
    """

    as_json: tuple[str, ...]
    texts_as_json: tuple[str, ...]
    properties: tuple[tuple[str, str], ...]


@lru_cache(maxsize=32)
def _shape(names: tuple[str, ...], json_headers: str) -> _Shape:
    listed = frozenset(filter(None, json_headers.split(",")))
    as_json = tuple(name for name in names if name in listed or name in TYPED)
    return _Shape(
        as_json,
        tuple(name for name in as_json if name in TEXTS),
        tuple((name, name.removeprefix(_PROPERTY)) for name in names if name.startswith(_PROPERTY)),
    )


def _parse(name: str, text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text in _EMPTY:
        return _EMPTY[text].copy()
    try:
        return _JSON.decode(text)
    except (ValueError, RecursionError) as exc:
        raise UndecodableRecordError(f"the header {name!r} is not JSON ({exc})") from exc


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


#: One for all headers: `json.loads` would make one for each, because of `parse_constant`.
_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
#: What most of a task's headers consist of: words that can't be changed, and so are shared, and such as can.
_WORDS = {"null": None, "true": True, "false": False, "0": 0, "2": 2}
_EMPTY: dict[str, Any] = {"{}": {}, "[]": [], "[null,null]": [None, None]}


def _check_property(name: str, value: object) -> None:
    """Refuse a property that is not of its kind."""
    number = _PROPERTY_KINDS[name] is int
    if name == "expiration" and isinstance(value, int | float):
        return
    raise UndecodableRecordError(
        f"the header {_PROPERTY + name!r} must be {'a JSON int' if number else 'text'}, not "
        f"{value!r:.100}"
    )
