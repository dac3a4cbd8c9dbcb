"""The record's headers, there and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kombu_kafka.record import UndecodableRecordError, decode, encode_headers

JSON = st.recursive(
    st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text("abcdefgh_", min_size=1, max_size=8)


@given(headers=st.dictionaries(NAMES, JSON, max_size=8))
def test_whatever_is_json_comes_back_as_it_was(headers: dict[str, Any]) -> None:
    properties = {"correlation_id": "c", "priority": 3, "expiration": None}
    encoded = encode_headers(headers, properties, "application/json", "utf-8")
    envelope = decode(encoded, b"")
    assert envelope.headers == headers
    assert envelope.properties == {"correlation_id": "c", "priority": 3}
    assert (envelope.content_type, envelope.content_encoding) == ("application/json", "utf-8")


def test_text_is_plain_text_in_the_record() -> None:
    encoded = encode_headers({"task": "größe", "retries": 2}, {}, None, None)
    assert ("task", "größe".encode()) in encoded
    assert ("retries", b"2") in encoded
    assert ("json-headers", b"retries") in encoded


def test_a_foreign_producer_needs_two_headers() -> None:
    envelope = decode([("task", b"reports.make"), ("id", b"1")], b"[[], {}, {}]")
    assert envelope.headers == {"task": "reports.make", "id": "1"}
    assert envelope.content_type == "application/json"


def test_a_foreign_producers_typed_headers_are_read_as_such() -> None:
    headers = [("task", b"t"), ("id", b"1"), ("retries", b"2"), ("timelimit", b"[null, 3.5]")]
    assert decode(headers, b"").headers["timelimit"] == [None, 3.5]


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ([], None),
        ([("x", b"\xff")], b""),
        ([("x", b"{"), ("json-headers", b"x")], b""),
        ([("task", b"t")], b""),
        ([("task", b""), ("id", b"1")], b""),
        ([("task", b"t"), ("id", b"1"), ("retries", b"many")], b""),
        ([("task", b"t"), ("id", b"1"), ("retries", b'"2"')], b""),
        ([("task", b"t"), ("id", b"1"), ("timelimit", b"[1]")], b""),
        ([("task", b"t"), ("id", b"1"), ("timelimit", b'["a", 1]')], b""),
        ([("task", b"t"), ("id", b"1"), ("stamps", b"[]")], b""),
        ([("task", b"t"), ("id", b"5"), ("json-headers", b"id")], b""),
    ],
)
def test_what_is_no_message_is_refused(headers: Any, value: bytes | None) -> None:
    with pytest.raises(UndecodableRecordError):
        decode(headers, value)


@given(
    headers=st.lists(st.tuples(st.text(max_size=12), st.binary(max_size=20) | st.none())),
    listed=st.binary(max_size=20),
)
def test_any_bytes_are_decoded_or_refused(headers: Any, listed: bytes) -> None:
    for extra in ([], [("json-headers", listed)], [("task", b"t"), ("id", b"1")]):
        try:
            decode([*headers, *extra], b"")
        except UndecodableRecordError:
            continue


def test_a_header_that_is_neither_text_nor_json_is_refused() -> None:
    with pytest.raises(ValueError, match="'when' holds a set"):
        encode_headers({"when": {1}}, {}, None, None)
