"""Levels of waiting: properties that hold for every delay and every record."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from kombu_kafka.delay import messages as delay
from kombu_kafka.delay.level import AHEAD_MS, Level
from kombu_kafka.delay.single_owner import SingleOwnerAssignor

MONTHS_MS = 90 * 86_400_000


def record(timestamp: int, headers: list[tuple[str, bytes]], offset: int = 0) -> ConsumerRecord:
    return ConsumerRecord(
        "later", 0, -1, offset, timestamp, 1, None, b"body", headers, None, -1, 4, -1
    )


def message(timestamp: int, due: int, offset: int = 0) -> ConsumerRecord:
    return record(timestamp, delay.describe("tasks", None, due), offset)


@given(st.integers(-1000, MONTHS_MS))
def test_a_level_never_waits_longer_than_what_is_left_and_is_the_highest_such(left: int) -> None:
    level = delay.level_of(left)
    assert 0 <= level < delay.LEVELS
    assert delay.wait_ms(level) <= left or level == 0
    assert level == delay.LEVELS - 1 or delay.wait_ms(level + 1) > left


@given(
    st.integers(1, MONTHS_MS),
    st.lists(st.integers(0, 50), min_size=60, max_size=60),
)
def test_a_message_arrives_never_early_and_not_late_however_slow_the_hops(
    left: int, pauses: list[int]
) -> None:
    """Each hop loses up to 50 ms; what was lost is made up for by the levels below."""
    now, due, hops = 0, left, 0
    while True:
        level = Level(delay.level_of(due - now), 0)
        level.push([message(now, due)])
        ready = level.ready_at()
        assert ready is not None
        now = max(now, ready) + pauses[hops % len(pauses)]
        hops += 1
        if now >= due:
            break
    assert due <= now <= due + 50
    assert hops <= 2 * delay.LEVELS + left // delay.wait_ms(delay.LEVELS - 1)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(100, 199)), min_size=1, max_size=40))
def test_who_waits_behind_others_is_late_by_the_finest_level_at_most(
    arrivals: list[tuple[int, int]],
) -> None:
    level, now, records = Level(0, 0), 0, []
    for offset, (gap, left) in enumerate(arrivals):
        now += gap
        records.append(message(now, now + left, offset))
    level.push(records)
    clock = 0
    while len(level):
        clock = max(clock, level.ready_at() or 0)
        for entry in list(level.ready(clock, 1)):
            assert entry.delayed is not None
            assert 0 <= clock - entry.delayed.due <= delay.BASE_MS
            level.forwarded(1)


def test_a_level_is_read_a_second_ahead_and_gives_only_what_is_ready() -> None:
    level = Level(3, 7)
    assert not level.full(0)
    level.push([message(0, 10_000, 7), message(500, 10_000, 9)])
    assert (level.ready_at(), len(level)) == (800, 2)
    assert not level.full(1300 - AHEAD_MS)
    assert level.full(1299 - AHEAD_MS)
    assert [entry.record.offset for entry in level.ready(1299, 10)] == [7]
    level.forwarded(1)
    assert (level.committed, level.ready_at()) == (8, 1300)


@given(
    st.text(min_size=1, max_size=30).filter(lambda name: name.strip()),
    st.none() | st.integers(0, 999),
    st.integers(0, 10**13),
    st.lists(st.tuples(st.text(max_size=9).filter(lambda n: not n.startswith("delay-")),
                       st.binary(max_size=9))),
)  # fmt: skip
def test_what_is_described_is_read_again_and_own_headers_stay_as_they_were(
    topic: str, partition: int | None, due: int, own: list[tuple[str, bytes]]
) -> None:
    read = delay.read(record(0, own + delay.describe(topic, partition, due)))
    assert (read.topic, read.partition, read.due, read.headers) == (topic, partition, due, own)


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ([], "no header 'delay-topic'"),
        ([("delay-topic", b"")], "no header 'delay-topic'"),
        ([("delay-topic", b"\xff")], "is not UTF-8"),
        ([("delay-topic", b"t")], "says when the record is due"),
        ([("delay-topic", b"t"), ("eta", b"2026-01-01T00:00:00")], "says when the record is due"),
        ([("delay-topic", b"t"), ("delay-until", b"-1")], "must be a whole number, not '-1'"),
        ([("delay-topic", b"t"), ("delay-until", b"9" * 99)], "must be a whole number"),
        ([("delay-topic", b"t"), ("delay-until", b"1"), ("delay-partition", b"x")], "whole number"),
    ],
)
def test_a_record_that_says_not_where_or_when_is_undeliverable(
    headers: list[tuple[str, bytes]], sentence: str
) -> None:
    with pytest.raises(delay.UndeliverableError, match=sentence):
        delay.read(record(0, headers))


@given(st.datetimes(datetime(1990, 1, 1), datetime(2190, 1, 1), timezones=st.just(UTC)))
def test_an_eta_is_never_read_as_earlier_than_it_is(moment: datetime) -> None:
    due = delay.due_of({"eta": moment.isoformat()})
    assert due is not None
    assert moment.timestamp() * 1000 <= due <= moment.timestamp() * 1000 + 1
    naive = moment.replace(tzinfo=None)
    assert delay.due_of({"eta": naive.isoformat()}) is None


@pytest.mark.parametrize("eta", [None, 5, "", "soon", "9999-99-99T00:00:00Z"])
def test_an_eta_that_only_the_worker_can_make_sense_of_is_left_to_it(eta: Any) -> None:
    assert delay.due_of({"eta": eta}) is None


def assign(**members: tuple[int, list[int]]) -> dict[str, list[int]]:
    """Assign four partitions to members, each given by generation and what it says it owns."""
    partition = SimpleNamespace
    subscriptions = [
        SimpleNamespace(
            member_id=name,
            metadata=SimpleNamespace(
                topics=["later"],
                generation_id=generation,
                owned_partitions=[partition(topic="later", partitions=owned)] if owned else [],
            ),
        )
        for name, (generation, owned) in members.items()
    ]
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: {0, 1, 2, 3})
    answer = SingleOwnerAssignor().assign(cluster, subscriptions)
    everything = [tp for member in answer.values() for tp in member.partitions()]
    assert len(everything) == len(set(everything))
    assert all(tp == TopicPartition("later", tp.partition) for tp in everything)
    return {
        name: sorted(tp.partition for tp in member.partitions()) for name, member in answer.items()
    }


def test_one_member_gets_everything_and_keeps_it() -> None:
    everything = [0, 1, 2, 3]
    assert assign(b=(-1, []), a=(-1, [])) == {"a": everything, "b": []}
    assert assign(b=(4, everything), a=(-1, [])) == {"a": [], "b": everything}
    assert assign(b=(4, [0, 1]), a=(-1, [])) == {"a": [], "b": everything}


def test_who_was_away_gives_way_and_who_is_no_less_right_gives_up_first() -> None:
    assert assign(a=(3, [0, 1, 2, 3]), b=(4, [0, 1, 2, 3])) == {"a": [], "b": [0, 1, 2, 3]}
    assert assign(a=(4, [0, 1]), b=(4, [2, 3])) == {"a": [0, 1], "b": []}
