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

from .task_headers import TYPED, fault

__all__ = (
    "DEFAULT_CONTENT_ENCODING",
    "DEFAULT_CONTENT_TYPE",
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
_PROPERTY_KINDS: dict[str, type] = {
    name: int if name in ("priority", "delivery_mode") else str for name in _PROPERTIES
}


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
    pairs += [(_PROPERTY + name, properties.get(name)) for name in _PROPERTIES]
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
    texts = _texts(headers or ())
    as_json = _listed(texts.pop(_JSON_HEADERS, ""))
    envelope = Envelope(
        content_type=texts.pop(_CONTENT_TYPE, DEFAULT_CONTENT_TYPE),
        content_encoding=texts.pop(_CONTENT_ENCODING, DEFAULT_CONTENT_ENCODING),
    )
    for name, text in texts.items():
        parsed = _parse(name, text) if name in as_json or name in TYPED else text
        if name.startswith(_PROPERTY):
            envelope.properties[name.removeprefix(_PROPERTY)] = parsed
        else:
            envelope.headers[name] = parsed
    encoding = envelope.content_encoding.lower()
    if envelope.content_type == DEFAULT_CONTENT_TYPE and encoding not in _JSON_ENCODINGS:
        raise UndecodableRecordError(
            f"the header 'content-encoding' is {envelope.content_encoding!r:.100}, and JSON is UTF-8"
        )
    for name, kind in _PROPERTY_KINDS.items():
        found = envelope.properties.get(name)
        if found is not None and type(found) is not kind:
            _check_property(name, found)
    if "task" in envelope.headers and (sentence := fault(envelope.headers)):
        raise UndecodableRecordError(sentence)
    return envelope


def is_task(record: ConsumerRecord) -> bool:
    """Whether a record, readable or not, asks for a task to be run."""
    return any(name == "task" for name, _ in record.headers)


def _no_value(headers: Mapping[str, bytes | None]) -> str:
    unreadable = headers.get(UNREADABLE)
    if unreadable is None:
        return "the record has no value (a tombstone), so no message body"
    return f"Kafka's client can't read the record ({unreadable.decode(errors='replace')})"


def _texts(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    texts = {}
    name = ""
    try:
        for name, raw in headers:
            texts[name] = raw.decode() if raw else ""
    except UnicodeDecodeError as exc:
        raise UndecodableRecordError(f"the header {name!r} is not UTF-8 ({exc.reason})") from exc
    return texts


@lru_cache(maxsize=64)
def _listed(text: str) -> frozenset[str]:
    """The names in a header ``json-headers``: nearly always the same few."""
    return frozenset(filter(None, text.split(",")))


def _parse(name: str, text: str) -> Any:
    try:
        # The words that most of a task's headers consist of; they can't be changed, so they are shared.
        return _WORDS[text] if text in _WORDS else _JSON.decode(text)
    except (ValueError, RecursionError) as exc:
        raise UndecodableRecordError(f"the header {name!r} is not JSON ({exc})") from exc


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


#: One for all headers: `json.loads` would make one for each, because of `parse_constant`.
_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
_WORDS = {"null": None, "true": True, "false": False, "0": 0, "2": 2}


def _check_property(name: str, value: object) -> None:
    """Refuse a property that is not of its kind."""
    number = _PROPERTY_KINDS[name] is int
    if name == "expiration" and isinstance(value, int | float):
        return
    raise UndecodableRecordError(
        f"the header {_PROPERTY + name!r} must be {'a JSON int' if number else 'text'}, not "
        f"{value!r:.100}"
    )
