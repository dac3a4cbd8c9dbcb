"""Letters are data, whatever they hold."""

from __future__ import annotations

import io
import json
import string
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord
from rich.console import Console

from kombu_kafka.delay import letters as delay_letters
from kombu_kafka.delay.messages import Delayed
from kombu_kafka.options import Options
from kombu_kafka.publishing import dead_letters
from kombu_kafka.record import UNREADABLE
from scheduler.dlq.filters import Filter, FilterError, parse_time, sort
from scheduler.dlq.history import Act, History
from scheduler.dlq.index import Entry
from scheduler.dlq.letters import Letter, LetterId, LetterIdError, from_record
from scheduler.dlq.outgoing import Changes, Refusal, guard, outgoing
from scheduler.dlq.render import history_table, letters_table, stats_page
from scheduler.dlq.statistics import groups, rates
from scheduler.dlq.texts import REDACTED, age, body, plain, redact, redact_text
from scheduler.dlq.transfer import LineError, parse
from scheduler.dlq.watch import Backoff, due


def record(value: bytes | None = b"[]", key: bytes | None = None, timestamp: int = 1000,
           headers: Any = (), topic: str = "tasks") -> ConsumerRecord:  # fmt: skip
    return ConsumerRecord(
        topic, 3, -1, 1042, timestamp, 0, key, value, list(headers), None, -1, -1, -1
    )


def lies(original: ConsumerRecord, **details: str) -> Letter:
    """The letter of a record, after it went through the topic."""
    letter = dead_letters.Letter(original, "exception", details)
    headers = dead_letters.letter_headers(letter, 2000.0, "worker-3")
    return from_record(
        record(original.value or b"", original.key, 2_000_000, headers, "celery_tasks_dlq")
    )


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HEADERS = st.lists(
    st.tuples(
        NAMES | st.sampled_from(["dlq-reason", "dlq-header-count", "dlq-replays", "task", "id"]),
        st.none() | st.binary(max_size=30),
    ),
    max_size=8,
)


@given(st.none() | st.binary(max_size=50), st.none() | st.binary(max_size=9), HEADERS)
def test_a_letter_gives_the_record_back_byte_for_byte(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    letter = lies(record(value, key, headers=headers))
    assert (letter.value, letter.key, letter.headers) == (value, key, tuple(headers))
    assert letter.reason == "exception", "ours, whatever the record says under that name"
    assert (letter.topic, letter.partition, letter.offset) == ("tasks", 3, 1042)
    assert letter.about["owner"] == "worker-3"
    assert 0 <= letter.replays <= 999_999


@given(HEADERS, st.none() | st.binary(max_size=30))
def test_whatever_lies_in_the_topic_can_be_listed_shown_and_judged(
    headers: list[tuple[str, bytes | None]], value: bytes | None
) -> None:
    letter = from_record(record(value, headers=headers))
    entry = Entry(letter.light())
    assert Filter().matches(entry)
    body(letter)
    with suppress(Refusal):  # and nothing else
        guard(entry, force=False)
        outgoing(letter, Changes(args=[]), 1.0)


def test_what_cannot_be_parsed_says_only_where_it_lies() -> None:
    letter = lies(record(None, timestamp=-1, headers=[(UNREADABLE, b"bad crc")]))
    assert letter.headers == ()
    assert letter.about["unreadable"] == "bad crc"


def test_the_letter_of_a_delayed_record_holds_the_message_it_was_to_be() -> None:
    options = Options.of("kafka://127.0.0.1:1//tasks")
    message = [("task", b"shop.remind"), ("id", b"1")]
    delay = record(headers=[*message, ("delay-topic", b"gone"), ("delay-until", b"1")],
                   topic="celery_delay")  # fmt: skip
    delayed = Delayed(delay, "gone", None, 1, message)
    for known in (delayed, None):
        sent = delay_letters.letter(
            options, delay, known, delay_letters.Refusal("undeliverable", "x")
        )
        letter = from_record(record(headers=sent.headers))
        assert letter.headers == tuple(message if known else delay.headers)
        assert (letter.topic, letter.reason) == (
            "gone" if known else "celery_delay",
            "undeliverable",
        )
    unreadable = record(None, timestamp=-1, headers=[(UNREADABLE, b"bad crc")])
    sent = delay_letters.letter(
        options, unreadable, None, delay_letters.Refusal("undecodable", "x")
    )
    assert from_record(record(headers=sent.headers)).headers == ()


def test_a_replay_is_counted_and_its_first_failure_kept() -> None:
    first = lies(record(headers=[("task", b"t")]))
    assert (first.replays, first.first_failed_at) == (0, 2000.0)
    sent = outgoing(first, Changes(), 5000.0)
    assert (sent.topic, sent.partition) == ("tasks", 3)
    again = dead_letters.letter_headers(
        dead_letters.Letter(record(headers=sent.headers), "exception"), 9000.0
    )
    second = from_record(record(headers=again))
    assert (second.replays, second.first_failed_at, second.failed_at) == (1, 2000.0, 9000.0)
    third = outgoing(second, Changes(), 9500.0)
    assert [name for name, _ in third.headers] == [
        "task", "dlq-replays", "dlq-first-failed-at", "dlq-letter",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "3", "3-", "-1-2", "a-b", "3-1042x", "3-1\n0", "3-" + "9" * 30]
)
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(LetterIdError):
        LetterId.parse(text)


def test_ids() -> None:
    assert LetterId.parse(" 3-1042 ") == (3, 1042)
    assert str(LetterId(3, 1042)) == "3-1042"


@given(st.text(max_size=60))
def test_plain_text_acts_on_no_terminal(text: str) -> None:
    shown = plain(text)
    assert all(char.isprintable() or char == "\u3000" or char.isspace() for char in shown)
    assert not set(shown) & {
        chr(code) for code in (*range(32), 127, *range(128, 160), 0x202E, 0x2066)
    }


def test_plain_keeps_what_is_harmless() -> None:
    assert plain("käse ☃ 雪 [bold]") == "käse ☃ 雪 [bold]"
    assert plain("a\nb\tc\x1b", lines=True) == "a\nb\tc\\x1b"


def test_secrets_are_covered() -> None:
    data = {"user": "anna", "Password": "x", "nested": [{"api_key": "y"}], "url": "amqp://a:b@h"}
    assert redact(data) == {
        "user": "anna", "Password": REDACTED, "nested": [{"api_key": REDACTED}],
        "url": f"amqp://a:{REDACTED}@h",
    }  # fmt: skip
    text = "{'password': 'it''s', \"auth_token\": \"z\"} secret=q kafka://u:pw@host order=42"
    covered = redact_text(text)
    for gone in ("it'", '"z"', "=q", "pw@"):
        assert gone not in covered
    assert "order=42" in covered


def test_bodies() -> None:
    task = [("content-type", b"application/json")]
    assert json.loads(body(lies(record(b'[[1], {"token": "x"}, {}]', headers=task)))[0])[1] == {
        "token": REDACTED
    }
    assert body(lies(record(b"\x00\xff")))[1].endswith("binary")
    assert body(lies(record(None, b"k")))[1] == "the record has no value"
    assert "not JSON" in body(lies(record(b"[" * 100_000)))[1], "too deep to be read"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0s"), (99, "99s"), (100, "2m"), (7200, "2h"), (864_000, "10d"), (-5, "0s")],
)
def test_ages(seconds: float, said: str) -> None:
    assert age(seconds) == said


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 910.0), ("2m", 880.0), ("0.25h", 100.0), ("1970-01-01T00:00:50+00:00", 50.0)],
)
def test_times(text: str, expected: float) -> None:
    assert parse_time(text, now=1000.0) == expected


@pytest.mark.parametrize("text", ["", "soon", "2y", "-1h", "2026-13-01", "9" * 400])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(FilterError, match="is no time"):
        parse_time(text)


def test_the_guard() -> None:
    letter = lies(record())
    done = Act(act="replayed", by="anna", at=1.0)
    guard(Entry(letter), force=False)
    with pytest.raises(Refusal, match="replayed by anna"):
        guard(Entry(letter, (done,), "replayed"), force=False)
    often = lies(record(headers=[("dlq-replays", b"3")]))
    with pytest.raises(Refusal, match="replayed 3 times"):
        guard(Entry(often), force=False)
    guard(Entry(often, (done,), "replayed"), force=True)


def test_what_the_watch_replays() -> None:
    passing = lies(record(), kind="passing")
    backoff = Backoff(first=60, factor=5)
    assert not due(Entry(passing), Filter(), backoff, 2059.0)
    assert due(Entry(passing), Filter(), backoff, 2060.0)
    assert not due(Entry(passing, (), "skipped"), Filter(), backoff, 9999.0)
    assert not due(Entry(lies(record(), kind="hard")), Filter(), backoff, 9e9)
    assert not due(Entry(lies(record())), Filter(), backoff, 9e9)
    once = lies(record(headers=[("dlq-replays", b"1")]), kind="passing")
    assert not due(Entry(once), Filter(), backoff, 2299.0)
    assert due(Entry(once), Filter(), backoff, 2300.0)
    assert not due(Entry(lies(record(headers=[("dlq-replays", b"3")]), kind="passing")),
                   Filter(), backoff, 9e9)  # fmt: skip


def test_only_json_can_be_edited() -> None:
    for kind in (b"application/data", b"application/x-python-serialize"):
        with pytest.raises(Refusal):
            outgoing(lies(record(headers=[("content-type", kind)])), Changes(args=[]), 1.0)
    with pytest.raises(Refusal, match="can't be edited"):
        outgoing(lies(record(b"{}")), Changes(args=[]), 1.0)
    embed = {"callbacks": None}
    sent = outgoing(
        lies(record(json.dumps([[1], {"a": 2}, embed]).encode())), Changes(args=[5]), 1.0
    )
    assert json.loads(sent.value or b"") == [[5], {"a": 2}, embed]


def test_a_history_forgets_no_act_and_is_of_one_topic() -> None:
    options = Options.of("kafka://127.0.0.1:1//tasks")
    history = History(options, "topic-id")
    key, value = history.record(LetterId(0, 1), [Act(act="skipped", by="a", at=1.0, why="x")])
    assert key == b"topic-id/0-1"
    assert json.loads(value)["acts"] == [{"act": "skipped", "by": "a", "at": 1.0, "why": "x"}]
    assert history._letter(b"other-id/0-1") is None
    assert history._letter(key) == (0, 1)
    assert history._letter(b"\xff/0-1") is None


def test_counts() -> None:
    entries = [
        Entry(lies(record(headers=[("task", name.encode())]), exception="E")) for name in "aab"
    ]
    counted = groups(entries)
    assert [(group.task, group.total) for group in counted] == [("a", 2), ("b", 1)]
    assert rates(entries, 2000.0 + 3601)[-2] == 3
    assert sort(entries, "task", reverse=True)[0].letter.task == "b"


@given(st.text(string.printable, max_size=80) | st.just('{"format": "celery-dead-letter/1"}'))
def test_what_is_no_export(text: str) -> None:
    with pytest.raises(LineError, match="Line 7 is no exported letter"):
        parse(text, 7)


def test_tables_fit_the_terminal() -> None:
    entries = [
        Entry(
            lies(record(headers=[("task", name.encode())]), exception="KeyError", message="m" * 90)
        )
        for name in ("shop.charge", "shop.a_name_that_is_much_longer_than_any_column")
    ]
    act = Act(act="replayed", by="anna@host", at=1.0, to="tasks-3", why="the shop is back " * 3)
    acts = [(entry.letter.id, act) for entry in entries]
    for width in (80, 120, 200):
        tables = {
            "list": letters_table(entries, width=width),
            "stats": stats_page(groups(entries), entries, 2000.0, width=width),
            "history": history_table(acts, width=width),
        }
        for name, table in tables.items():
            console = Console(width=width, file=io.StringIO())
            console.print(table)
            lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
            assert max(map(len, lines)) <= width
            text = "\n".join(lines)
            assert all(word in text for word in SAID[name]), (name, width, text)
            if name == "list":
                assert len(lines) == 3
                assert ("tasks-3 @1042" in text) == (width >= 120)


SAID = {
    "list": ("shop.charge", "KeyError", "mmmmm"),
    "stats": ("shop.charge", "KeyError", "new", "replayed", "skipped", "oldest new", "last"),
    "history": ("anna@host", "tasks-3", "replayed", "the shop is back"),
}
