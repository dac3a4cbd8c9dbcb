"""Levels of waiting: properties that hold for every delay and every record."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import OffsetAndMetadata, TopicPartition

from kombu_kafka.delay import level as delay_level
from kombu_kafka.delay import messages as delay
from kombu_kafka.delay.backlog import late_by
from kombu_kafka.delay.level import AHEAD_MS, HOLD_MS, Entry, Level, take
from kombu_kafka.delay.opening import trusted
from kombu_kafka.delay.single_owner import SingleOwnerAssignor
from kombu_kafka.delay.watch import QUIET_MS, Watch, _Changes

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


def forward(level: Level, entries: list[Entry]) -> OffsetAndMetadata:
    """Forward entries as a dispatcher does; return what Kafka was told."""
    told = level.commit(entries)
    level.forwarded(entries)
    return told


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
        level = Level(delay.level_of(due - now))
        level.push([message(now, due)])
        ready = level.ready_at()
        assert ready is not None
        assert take([level], ready - 1, 9) == []
        now = max(now, ready) + pauses[hops % len(pauses)]
        (entry,) = take([level], now, 9)
        assert entry.due == due
        hops += 1
        if now >= due:
            break
    assert due <= now <= due + 50
    # Below what is held in memory there are no hops any more.
    assert hops <= 1 + (left // HOLD_MS).bit_length() + left // delay.wait_ms(delay.LEVELS - 1)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30_000)), min_size=1, max_size=40))
def test_nobody_waits_behind_others(arrivals: list[tuple[int, int]]) -> None:
    """What stays in a level is taken at the moment it is due, whatever lies before it."""
    levels: dict[int, Level] = {}
    now = 0
    for offset, (gap, left) in enumerate(arrivals):
        now += gap
        number = delay.level_of(left)
        level = levels.setdefault(number, Level(number))
        level.push([message(now, now + left, offset)])
    while any(levels.values()):
        clock = min(at for level in levels.values() if (at := level.ready_at()) is not None)
        taken = take(list(levels.values()), clock, 99)
        assert taken
        for entry in taken:
            assert clock == (entry.due if entry.stays else entry.waited)
            forward(entry.level, [entry])


def test_what_is_due_goes_before_what_only_goes_to_another_level() -> None:
    crowd, few = Level(9), Level(2)
    crowd.push([message(0, 90_000 - 10 * offset, offset) for offset in range(20)])
    now = delay.wait_ms(9)
    few.push([message(now - 500, now - number, number) for number in range(5)])
    taken = take([crowd, few], now, 8)
    assert [entry.due for entry in taken[:5]] == [now - 4, now - 3, now - 2, now - 1, now]
    # And of those that can wait the ones that are due first; also once their time has come.
    assert [entry.record.offset for entry in taken[5:]] == [19, 18, 17]
    for entry in taken:
        entry.level.give_back(entry)
    assert take([crowd, few], now, 8) == taken
    (late,) = take([crowd, few], 90_000, 1)
    assert late.due == 90_000 - 10 * 16


def test_a_level_is_read_a_second_ahead_and_gives_only_what_is_ready() -> None:
    level = Level(3, 7)
    assert not level.full(0)
    level.push([message(0, 10_000, 7), message(500, 10_000, 9)])
    assert (level.ready_at(), len(level)) == (800, 2)
    assert not level.full(1300 - AHEAD_MS)
    assert level.full(1299 - AHEAD_MS)
    first = take([level], 1299, 10)
    assert [entry.record.offset for entry in first] == [7]
    assert forward(level, first).offset == 9
    assert (level.committed, level.ready_at()) == (9, 1300)


def test_what_is_read_ahead_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_level, "MAX_HELD", 3)
    monkeypatch.setattr(delay_level, "MAX_SPAN", 50)
    level = Level(6)
    level.push([message(0, 7000, offset) for offset in range(5)])
    # Two more than may stay go to a finer level.
    assert level.ready_at() == 6400
    leaving = take([level], 6400, 9)
    assert [entry.record.offset for entry in leaving] == [3, 4]
    forward(level, leaving)
    level.push([message(6400, 10**6, 60)])
    assert level.read_on_at() == math.inf  # its commit must tell of all since the first
    forward(level, take([level], 7000, 9))
    assert level.read_on_at() < math.inf


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=60),
    st.data(),
)
def test_a_successor_knows_exactly_what_was_forwarded(gaps: list[int], data: st.DataObject) -> None:
    """Whatever was forwarded in whatever order, over several owners, with gaps in the offsets."""
    offsets, at = [], 5
    for gap in gaps:
        at += gap
        offsets.append(at)
    records = {offset: message(0, 10**6 + offset * 7919 % 101, offset) for offset in offsets}
    told, forwarded = OffsetAndMetadata(5, "", -1), set[int]()
    for _ in range(3):
        level = Level(20, 0, told)
        upto = data.draw(st.integers(0, len(offsets)))
        level.push([records[o] for o in offsets[:upto] if o >= level.position])
        assert set(level._entries) == {o for o in offsets[:upto] if o not in forwarded}
        for size in data.draw(st.lists(st.integers(1, 9), max_size=3)):
            if entries := take([level], 2 * 10**8, size):
                told = forward(level, entries)
                forwarded |= {entry.record.offset for entry in entries}
                assert level.committed == told.offset
    last = Level(20, 0, told)
    last.push([records[o] for o in offsets if o >= last.position])
    assert set(last._entries) == set(offsets) - forwarded


def forwarded_above(topic: str) -> OffsetAndMetadata:
    """A commit at offset 0: what lies at 1 and 2 was forwarded, and 0 was not."""
    level = Level(20, topic=topic)
    level.push([message(0, 10**9, 0), message(0, 0, 1), message(0, 0, 2)])
    told = forward(level, take([level], 1, 9))
    assert [len(found) for found in Level(20, 0, told).known] == [2]
    return told


def test_what_lies_in_a_log_that_was_cut_short_is_not_taken_for_forwarded() -> None:
    told = forwarded_above("0a0b0c0d")
    assert trusted(told, 3, "0a0b0c0d") == (told, "")
    assert trusted(None, 3, "0a0b0c0d") == (None, "")
    kept, doubt = trusted(told, 2, "0a0b0c0d")
    assert "up to offset 2) is ignored" in doubt
    level = Level(20, 0, kept)
    level.push([message(0, 10**9, offset) for offset in range(3)])
    assert len(level) == 3
    kept, doubt = trusted(OffsetAndMetadata(9, "", -1), 8, "")
    assert kept is None
    assert "ends at 8" in doubt


def test_a_topic_made_anew_is_another_even_where_nothing_lies_above_the_offset() -> None:
    level = Level(0, topic="0a0b0c0d")
    level.push([message(0, 0, 0)])
    told = forward(level, take([level], 1, 9))
    for committed in (told, forwarded_above("0a0b0c0d")):
        kept, doubt = trusted(committed, 9, "11111111")
        assert kept is None
        assert "made anew" in doubt
        # Where its id isn't known to either, nothing speaks against it.
        assert trusted(committed, 9, "") == (committed, "")
    unnamed = forwarded_above("")
    assert trusted(unnamed, 9, "11111111") == (unnamed, "")


def test_late_is_what_is_due_and_no_hop_that_waits() -> None:
    level = Level(6)
    hop, due = (Entry(message(0, at), level) for at in (10**6, 9000))
    assert hop.ready < 20_000
    assert late_by([], 20) == 0
    assert late_by([hop], 20) == 0
    assert late_by([hop, due], 20) == 11


def test_after_a_failure_the_dispatcher_does_not_wait_before_it_begins_anew() -> None:
    watch = Watch.__new__(Watch)
    watch._changes, watch._levels = _Changes(), {}
    assert watch._patience(QUIET_MS) > 0
    watch._changes.seen.set()
    assert watch._patience(QUIET_MS) == 0


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


def test_what_waits_is_counted_without_what_went_before_it_was_its_turn() -> None:
    before = Level(0)
    before.push([message(0, 10, offset) for offset in range(12)])
    went = [entry for entry in take([before], 60_000, 12) if entry.record.offset in range(2, 12)]
    level = Level(0, committed=before.commit(went))
    assert [level.unforwarded(end) for end in (12, 15)] == [2, 5]
    level.push([message(0, 10, offset) for offset in range(12)])
    assert level.unforwarded(15) == 5
    level.forwarded(take([level], 60_000, 12))
    assert [level.unforwarded(end) for end in (12, 15)] == [0, 3]
