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
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord

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

_CONTENT_TYPE = "content-type"
_CONTENT_ENCODING = "content-encoding"
_JSON_HEADERS = "json-headers"
_PROPERTY = "amqp-"

#: Properties that travel. The rest belongs to one connection (delivery tag) or is Kafka's (key).
_PROPERTIES = ("correlation_id", "reply_to", "priority", "delivery_mode", "expiration",
               "exchange", "routing_key")  # fmt: skip

#: Celery's headers that are not text, and what a foreign producer's text for them must hold.
_TYPED: dict[str, tuple[type, ...]] = {
    "retries": (int,),
    "group_index": (int,),
    "replaced_task_nesting": (int,),
    "ignore_result": (bool,),
    "timelimit": (list,),
    "stamped_headers": (list,),
    "stamps": (dict,),
}


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
            encoded.append((name, json.dumps(value, separators=(",", ":")).encode()))
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
    texts = {name: _text(name, raw) for name, raw in headers or ()}
    as_json = set(filter(None, texts.pop(_JSON_HEADERS, "").split(",")))
    envelope = Envelope(
        content_type=texts.pop(_CONTENT_TYPE, DEFAULT_CONTENT_TYPE),
        content_encoding=texts.pop(_CONTENT_ENCODING, DEFAULT_CONTENT_ENCODING),
    )
    for name, text in texts.items():
        parsed = _parse(name, text) if name in as_json or name in _TYPED else text
        if name.startswith(_PROPERTY):
            envelope.properties[name.removeprefix(_PROPERTY)] = parsed
        else:
            envelope.headers[name] = parsed
    if "task" in envelope.headers:
        _check_task(envelope.headers)
    return envelope


def is_task(record: ConsumerRecord) -> bool:
    """Whether a record, readable or not, asks for a task to be run."""
    return any(name == "task" for name, _ in record.headers)


def _no_value(headers: Mapping[str, bytes | None]) -> str:
    unreadable = headers.get(UNREADABLE)
    if unreadable is None:
        return "the record has no value (a tombstone), so no message body"
    return f"Kafka's client can't read the record ({unreadable.decode(errors='replace')})"


def _text(name: str, raw: bytes | None) -> str:
    try:
        return (raw or b"").decode()
    except UnicodeDecodeError as exc:
        raise UndecodableRecordError(f"the header {name!r} is not UTF-8 ({exc.reason})") from exc


def _parse(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UndecodableRecordError(f"the header {name!r} is not JSON ({exc})") from exc


def _check_task(headers: Mapping[str, Any]) -> None:
    """Refuse what would take Celery's consumer down: it reads these without looking."""
    for name in ("task", "id"):
        if not isinstance(headers.get(name), str) or not headers[name]:
            raise UndecodableRecordError(f"the record is a task, but its header {name!r} is empty")
    for name, types in _TYPED.items():
        value = headers.get(name)
        if value is not None and not isinstance(value, types):
            raise UndecodableRecordError(
                f"the header {name!r} must be a JSON {types[0].__name__}, not {value!r}"
            )
    limits = headers.get("timelimit")
    if limits is not None and (
        len(limits) != 2 or not all(isinstance(x, int | float | None) for x in limits)
    ):
        raise UndecodableRecordError(
            f"the header 'timelimit' must be [hard, soft] in seconds or null, not {limits!r}"
        )
