"""Records that are no tasks, in every way a foreign producer gets it wrong; the same ones for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["KINDS", "Malformed", "malformed"]

Headers = list[tuple[str, bytes | None]]

BODY = b"[[],{},{}]"

#: Values of JSON that are no text, and what they stand for nowhere among Celery's texts.
NO_TEXT = [b"1", b"-1", b"1.5", b"true", b"[]", b"{}", b'["a"]', b'{"a":1}', b"[[[[]]]]", b"1e999"]
NO_JSON = [b"", b"{", b"garbage", b"[1,", b"NaN", b"Infinity", b"\x00", b"'a'", b"[" * 5000]
NO_TIME = [b"garbage", b"now", b"2026-13-01T00:00:00", b"tomorrow", b"1e9", b"12345678901234567890",
           b"0000-00-00", b"2026-01-01T25:00:00Z", b"9999-12-31T23:59:59-23:59", b"[]", b"\x00",
           b"2026-01-01T00:00:00+99:00", "２０２６年".encode()]  # fmt: skip
NO_UTF8 = [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xfe\xff\x00a", b"ok\x80"]
TEXTS = ["lang", "root_id", "parent_id", "group", "meth", "shadow", "eta", "expires", "argsrepr",
         "kwargsrepr", "origin"]  # fmt: skip
COUNTS = ["retries", "group_index", "replaced_task_nesting"]


@dataclass
class Malformed:
    """A record, and how it is wrong."""

    kind: str
    value: bytes | None = BODY
    key: bytes | None = None
    headers: Headers = field(default_factory=list)


def _task(rng: random.Random, *more: tuple[str, bytes | None]) -> Headers:
    return [
        ("task", b"tests.note"),
        ("id", f"fuzz-{rng.getrandbits(64):x}".encode()),
        *more,
    ]


def _tombstone(rng: random.Random, record: Malformed) -> None:
    record.value = None
    record.headers = rng.choice([[], _task(rng)])


def _no_task(rng: random.Random, record: Malformed) -> None:
    record.headers = rng.choice([[], [("id", b"1")], [("Task", b"tests.note")], [("", b"")]])
    record.value = rng.choice([b"", b"hello", b"{}", BODY, b"null", rng.randbytes(20)])


def _no_id(rng: random.Random, record: Malformed) -> None:
    wrong: Headers = [("task", b"tests.note")]
    wrong += rng.choice([[], [("id", None)], [("id", b"")], [("id", b"x" * 1001)]])
    record.headers = wrong


def _name(rng: random.Random, record: Malformed) -> None:
    name: bytes | None = rng.choice([None, b"", b"\x00", b"no.such", b"x" * 5000, b"tests.note ",
                       b"celery.no_such", b"__import__('os')", "täsk✓".encode()])  # fmt: skip
    record.headers = [("task", name), ("id", b"1")]


def _no_utf8(rng: random.Random, record: Malformed) -> None:
    header = rng.choice(["task", "id", "argsrepr", "content-type", "json-headers", "mine"])
    record.headers = _task(rng, (header, rng.choice(NO_UTF8)))


def _text(rng: random.Random, record: Malformed) -> None:
    name = rng.choice(TEXTS)
    record.headers = _task(rng, (name, rng.choice(NO_TEXT)), ("json-headers", name.encode()))


def _count(rng: random.Random, record: Malformed) -> None:
    wrong = [b"-1", b"1.5", b"true", b'"1"', b"[]", b"{}", b"1e3", b"99999999999999999999"]
    record.headers = _task(rng, (rng.choice(COUNTS), rng.choice(wrong + NO_JSON)))


def _typed(rng: random.Random, record: Malformed) -> None:
    name, wrong = rng.choice(
        [("ignore_result", [b"1", b"yes", b'"true"', b"[]"]), ("stamps", [b"[]", b"1", b'"a"']),
         ("stamped_headers", [b"{}", b"1", b'"a"'])]
    )  # fmt: skip
    record.headers = _task(rng, (name, rng.choice(wrong + NO_JSON)))


def _limits(rng: random.Random, record: Malformed) -> None:
    wrong = [b"[1]", b"[1,2,3]", b"[true,null]", b'["1",null]', b"{}", b"5", b"[-1,null]",
             b"[1e999,null]", b"[null,99999999999]", b"[[],[]]"]  # fmt: skip
    record.headers = _task(rng, ("timelimit", rng.choice(wrong + NO_JSON)))


def _time(rng: random.Random, record: Malformed) -> None:
    record.headers = _task(rng, (rng.choice(["eta", "expires"]), rng.choice(NO_TIME)))


def _json_headers(rng: random.Random, record: Malformed) -> None:
    listed, value = rng.choice(
        [("mine", rng.choice(NO_JSON)), ("mine,,id", b"{"), ("task", b"{}"), ("id", b"7"),
         ("task,id", b"tests.note"), ("mine", b"[" * 100_000), ("mine", b'{"a":' * 3000)]
    )  # fmt: skip
    name = listed.split(",")[0]
    record.headers = _task(rng, (name, value), ("json-headers", listed.encode()))


def _property(rng: random.Random, record: Malformed) -> None:
    name, value = rng.choice(
        [("priority", b"high"), ("priority", b"[]"), ("delivery_mode", b"{}"),
         ("correlation_id", b"1"), ("reply_to", b"[]"), ("reply_to", b"true")]
    )  # fmt: skip
    name = f"amqp-{name}"
    record.headers = _task(rng, (name, value), ("json-headers", name.encode()))


def _content(rng: random.Random, record: Malformed) -> None:
    kind, encoding = rng.choice(
        [("application/x-python-serialize", "binary"), ("application/x-yaml", "utf-8"),
         ("application/x-msgpack", "binary"), ("application/data", "utf-8"), ("text/plain", "utf-8"),
         ("application/octet-stream", "binary"), ("no such type", "utf-8"), ("", "utf-8"),
         ("application/json", "nonsense"), ("application/json", "utf-16"),
         ("application/json", "hex"), ("application/json", "base64"), ("application/json", "zlib"),
         ("application/json", "utf-32")]
    )  # fmt: skip
    record.headers = _task(
        rng, ("content-type", kind.encode()), ("content-encoding", encoding.encode())
    )


def _compression(rng: random.Random, record: Malformed) -> None:
    name = rng.choice([b"zlib", b"bzip2", b"gzip", b"application/x-gzip", b"no-such", b"\x00"])
    record.headers = _task(rng, ("compression", name))
    record.value = rng.choice([BODY, b"", rng.randbytes(100)])


def _body(rng: random.Random, record: Malformed) -> None:
    record.headers = _task(rng)
    record.value = rng.choice(
        [b"", b"garbage", b"{", b"[[],{},{}", b"\xff\xfe", "[[],{},{}]".encode("utf-16"), b"\x00",
         b"[" * 100_000, b'{"a":' * 50_000, rng.randbytes(200), b'[["\xed\xa0\x80"],{},{}]',
         b"\x80\x04K\x01.", b"W1tdLHt9LHt9XQ=="]
    )  # fmt: skip


def _shape(rng: random.Random, record: Malformed) -> None:
    record.headers = _task(rng)
    wrong = [b"{}", b"[]", b"1", b"null", b'"text"', b"[[],{}]", b"[[],{},{},{}]", b"[{},[],{}]",
             b"[1,{},{}]", b'["abc",{},{}]', b"[null,{},{}]", b"[[],null,{}]", b'[[],"k",{}]',
             b"[[],[],{}]", b'[[],{},"embed"]', b"[[],{},[]]", b"[[],{},5]", b"true", b"[[[]]]",
             b'{"args":[],"kwargs":[]}', b'{"args":1,"kwargs":{}}']  # fmt: skip
    record.value = rng.choice(wrong)


def _embed(rng: random.Random, record: Malformed) -> None:
    record.headers = _task(rng)
    name = rng.choice(["callbacks", "errbacks", "chain", "chord"])
    value = rng.choice([1, "x", [1], ["x"], True, [[]], {"a": 1}, [{}], [{"task": 1}], [None]])
    record.value = json.dumps([[], {}, {name: value}]).encode()


def _old_protocol(rng: random.Random, record: Malformed) -> None:
    record.value = json.dumps(
        rng.choice(
            [
                {"task": "tests.note"},
                {"task": "tests.note", "id": 1, "args": 1},
                {"task": []},
                {"task": "tests.note", "id": "1", "kwargs": []},
                {"task": {}, "id": "1"},
                {"task": None, "id": None},
                {"task": "tests.note", "id": "1", "args": "abc"},
            ]
        )
    ).encode()


def _wrong_arguments(rng: random.Random, record: Malformed) -> None:
    record.headers = _task(rng)
    record.value = rng.choice([b"[[1,2,3],{},{}]", b'[[],{"no":1},{}]', b'[[],{"self":1},{}]'])


def _many_headers(rng: random.Random, record: Malformed) -> None:
    record.headers = [
        (f"h{n % 50}", rng.randbytes(3)) for n in range(rng.choice([100, 1000, 3000]))
    ]


def _nulls(rng: random.Random, record: Malformed) -> None:
    record.headers = [("task", None), ("id", None), ("mine", None), ("mine", b"")]
    rng.shuffle(record.headers)


def _large(rng: random.Random, record: Malformed) -> None:
    record.headers = rng.choice([[], _task(rng)])
    record.value = rng.randbytes(rng.choice([20_000, 60_000]))


#: Every way to be wrong, and how often it comes in a thousand.
KINDS: dict[Callable[[random.Random, Malformed], None], int] = {
    _tombstone: 60, _no_task: 60, _no_id: 60, _name: 60, _no_utf8: 60, _text: 100, _count: 60,
    _typed: 60, _limits: 60, _time: 60, _json_headers: 40, _property: 40, _content: 60,
    _compression: 40, _body: 50, _shape: 60, _embed: 40, _old_protocol: 30, _wrong_arguments: 5,
    _many_headers: 5, _nulls: 20, _large: 5,
}  # fmt: skip


def malformed(count: int, seed: int) -> list[Malformed]:
    """Make `count` records; every kind is among them."""
    rng = random.Random(seed)
    kinds = list(KINDS)
    picked = kinds + rng.choices(kinds, weights=list(KINDS.values()), k=count - len(kinds))
    rng.shuffle(picked)
    records = []
    for make in picked:
        record = Malformed(make.__name__.strip("_"))
        record.key = rng.choice([None, None, b"", b"order-42", rng.randbytes(8), b"\xff" * 300])
        make(rng, record)
        records.append(record)
    return records
