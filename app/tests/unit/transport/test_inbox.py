"""Where the consumer's thread and the event loop meet."""

from __future__ import annotations

import logging
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.structs import TopicPartition

from kombu_kafka.consuming import progress
from kombu_kafka.consuming.commit_metadata import CommitMetadata, decode
from kombu_kafka.consuming.inbox import Delivery, Inbox
from kombu_kafka.consuming.journal import Journal, JournalIdentity
from kombu_kafka.order import make_order

TASKS = TopicPartition("tasks", 0)
OTHER = TopicPartition("tasks", 1)


def _records(partition: TopicPartition, *offsets: int) -> list[Any]:
    return [
        SimpleNamespace(topic=partition.topic, partition=partition.partition, offset=offset,
                        timestamp=offset, key=None, value=b"", headers=[])
        for offset in offsets
    ]  # fmt: skip


def _inbox(ordering: str = "partition", journal: Journal | None = None) -> Inbox:
    inbox = Inbox(max_buffered=3)
    inbox.open(TASKS, 0, make_order(ordering), journal, committed=0)
    return inbox


def _take(inbox: Inbox) -> Delivery:
    delivery = inbox.take({"tasks"})
    assert delivery is not None
    return delivery


def _offsets(inbox: Inbox) -> list[int]:
    """Take all that may go now."""
    taken = []
    while (delivery := inbox.take({"tasks"})) is not None:
        taken.append(delivery.record.offset)
    return taken


def _watermarks(inbox: Inbox, *, uncommitted: bool) -> dict[TopicPartition, int]:
    commits = inbox.commits(uncommitted=uncommitted)
    return {partition: commit.offset for partition, commit in commits.items()}


def _uncommitted(inbox: Inbox) -> dict[TopicPartition, int]:
    return _watermarks(inbox, uncommitted=True)


def test_strict_order_waits_for_the_acknowledgement() -> None:
    inbox = _inbox()
    inbox.push(TASKS, _records(TASKS, 0, 1), 2)
    first = inbox.take({"tasks"})
    assert first is not None
    assert inbox.take({"tasks"}) is None
    assert _uncommitted(inbox) == {}
    assert inbox.settle(first.tag)
    assert _uncommitted(inbox) == {TASKS: 1}
    second = inbox.take({"tasks"})
    assert second is not None
    assert second.record.offset == 1


def test_a_requeued_record_comes_again_in_its_place() -> None:
    inbox = _inbox()
    inbox.push(TASKS, _records(TASKS, 0, 1), 2)
    first = inbox.take({"tasks"})
    assert first is not None
    assert inbox.requeue(first.tag)
    again = inbox.take({"tasks"})
    assert again is not None
    assert (again.record.offset, again.redelivered) == (0, True)
    assert not inbox.settle(first.tag)


def test_partitions_take_turns() -> None:
    inbox = _inbox("none")
    inbox.open(OTHER, 0, make_order("none"), None)
    inbox.push(TASKS, _records(TASKS, 0, 1), 2)
    inbox.push(OTHER, _records(OTHER, 0, 1), 2)
    taken = [inbox.take({"tasks"}) for _ in range(4)]
    assert [delivery.record.partition for delivery in taken if delivery] == [0, 1, 0, 1]


def test_partitions_take_turns_whatever_else_is_asked_for_between() -> None:
    """As with priorities: each step is another topic, and has an inbox's turns in common."""
    inbox = Inbox(max_buffered=100)
    urgent = [TopicPartition("urgent", number) for number in range(2)]
    tasks = [TopicPartition("tasks", number) for number in range(4)]
    for partition in (*urgent, *tasks):
        inbox.open(partition, 0, make_order("none"), None)
        inbox.push(partition, _records(partition, *range(20)), 20)
    taken = [inbox.take({topic}) for _ in range(8) for topic in ("urgent", "tasks")]
    assert Counter(delivery.partition for delivery in taken if delivery) == {
        **dict.fromkeys(urgent, 4),
        **dict.fromkeys(tasks, 2),
    }


def test_a_late_acknowledgement_is_dropped() -> None:
    inbox = _inbox()
    inbox.push(TASKS, _records(TASKS, 0), 1)
    delivery = inbox.take({"tasks"})
    assert delivery is not None
    assert inbox.settle(delivery.tag)
    assert not inbox.settle(delivery.tag)
    assert _uncommitted(inbox) == {TASKS: 1}


def test_a_commit_that_is_confirmed_is_not_repeated() -> None:
    inbox = _inbox()
    inbox.push(TASKS, (), 5)
    assert _uncommitted(inbox) == {TASKS: 5}
    inbox.committed(inbox.commits(uncommitted=True))
    assert _uncommitted(inbox) == {}


def test_where_nothing_was_committed_the_beginning_is(  # or lag could not be read before a task
) -> None:
    inbox = Inbox(max_buffered=3)
    inbox.open(TASKS, 7, make_order("none"), None, committed=None)
    assert _uncommitted(inbox) == {TASKS: 7}
    inbox.committed(inbox.commits(uncommitted=True))
    assert _uncommitted(inbox) == {}
    assert _watermarks(inbox, uncommitted=False) == {TASKS: 7}


def test_a_full_partition_is_congested_until_it_drains() -> None:
    inbox = _inbox("none")
    inbox.push(TASKS, _records(TASKS, 0, 1, 2), 3)
    assert inbox.congested() == {TASKS}
    inbox.take({"tasks"})
    assert inbox.congested() == set()


def test_topics_without_a_consumer_are_left_alone() -> None:
    inbox = _inbox()
    inbox.push(TASKS, _records(TASKS, 0), 1)
    assert inbox.take({"others"}) is None
    assert inbox.take({"tasks"}) is not None


def test_a_closed_inbox_gives_nothing_but_takes_acknowledgements() -> None:
    inbox = _inbox()
    inbox.push(TASKS, _records(TASKS, 0, 1), 2)
    delivery = inbox.take({"tasks"})
    assert delivery is not None
    inbox.close()
    assert inbox.settle(delivery.tag)
    assert inbox.take({"tasks"}) is None
    assert _uncommitted(inbox) == {TASKS: 1}


def test_what_the_journal_knows_is_skipped_unless_it_is_another_record(tmp_path: Path) -> None:
    identity = JournalIdentity("c", "g", "tasks", "t", 0)
    journal = Journal(tmp_path, identity)
    journal.append(0, 0)
    journal.append(1, 77)  # another record's timestamp: the log was cut short and written anew
    inbox = _inbox("none", journal)
    inbox.push(TASKS, _records(TASKS, 0, 1), 2)
    delivery = inbox.take({"tasks"})
    assert delivery is not None
    assert delivery.record.offset == 1
    assert inbox.take({"tasks"}) is None


def test_the_descriptor_wakes_the_loop() -> None:
    inbox = _inbox()

    assert not inbox.wakeup.wait(0)
    inbox.push(TASKS, _records(TASKS, 0), 1)
    assert inbox.wakeup.wait(0)
    inbox.wakeup.clear()
    assert not inbox.wakeup.wait(0)
    inbox.release()
    inbox.wakeup.set()


def _told(inbox: Inbox) -> CommitMetadata:
    commits = inbox.commits(uncommitted=False)
    said = decode(commits[TASKS].metadata)
    assert said is not None
    assert said.watermark == commits[TASKS].offset
    inbox.committed(commits)
    return said


def test_kafka_is_told_what_is_done_above_the_watermark() -> None:
    inbox = _inbox("none")
    inbox.owner = "worker-0"
    inbox.push(TASKS, _records(TASKS, *range(10)), 10)
    taken = [_take(inbox) for _ in range(10)]
    for delivery in taken[1:4] + taken[6:9]:
        inbox.settle(delivery.tag)
    said = _told(inbox)
    assert (said.owner, said.watermark) == ("worker-0", 0)
    assert said.done == (range(1, 4), range(6, 9))
    assert inbox.commits(uncommitted=True) == {}
    inbox.settle(taken[9].tag)
    assert TASKS in inbox.commits(uncommitted=True)
    inbox.settle(taken[0].tag)
    assert (_told(inbox).watermark, _told(inbox).done) == (4, (range(6, 10),))


def test_what_kafka_knows_as_done_is_skipped_and_told_on() -> None:
    inbox = Inbox(max_buffered=100)
    inbox.open(TASKS, 5, make_order("none"), None, 5, known=[range(7, 9), range(11, 12)])
    assert _told(inbox).done == (range(7, 9), range(11, 12))
    inbox.push(TASKS, _records(TASKS, 5, 6, 7), 8)
    assert _told(inbox).done == (range(7, 9), range(11, 12))
    inbox.push(TASKS, _records(TASKS, 8, 9, 10, 11, 12), 13)
    assert _offsets(inbox) == [5, 6, 9, 10, 12]
    assert _told(inbox).done == (range(7, 9), range(11, 12))


def test_a_hundred_thousand_done_above_one_take_no_room(tmp_path: Path) -> None:
    journal = Journal(tmp_path, JournalIdentity("c", "g", "tasks", "t", 0))
    inbox = _inbox("none", journal)
    stuck = None
    for start in range(0, 100_000, 500):
        inbox.push(TASKS, _records(TASKS, *range(start, start + 500)), start + 500)
        stuck = stuck or _take(inbox)
        while (delivery := inbox.take({"tasks"})) is not None:
            inbox.settle(delivery.tag)
        inbox.committed(inbox.commits(uncommitted=True))
        assert inbox.congested() == set()
        assert len(journal.done) == 0
    statistics = inbox.statistics()[TASKS]
    assert (statistics.watermark, statistics.position) == (0, 100_000)
    assert (statistics.tracked, statistics.in_flight) == (1, 1)
    assert statistics.metadata_fill < 0.01
    assert journal.path.stat().st_size < 100_000
    assert stuck is not None
    inbox.settle(stuck.tag)
    assert _uncommitted(inbox) == {TASKS: 100_000}


def test_fetching_pauses_before_the_metadata_overflows_and_says_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "MEASURE_EVERY", 0)
    inbox = Inbox(max_buffered=10_000)
    inbox.open(TASKS, 0, make_order("none"), None, committed=0)
    every_third, end = [], 0
    while not inbox.congested():
        inbox.push(TASKS, _records(TASKS, *range(end, end + 300)), end + 300)
        end += 300
        while (delivery := inbox.take({"tasks"})) is not None:
            if delivery.record.offset % 3:
                inbox.settle(delivery.tag)
            else:
                every_third.append(delivery)
    statistics = inbox.statistics()[TASKS]
    assert statistics.paused_by == "metadata"
    assert 0.75 <= statistics.metadata_fill < 0.8
    assert _told(inbox).done[-1].stop == end
    inbox.congested()
    (line,) = [record.message for record in caplog.records]
    assert "Fetching of tasks-0 pauses: what is done above offset 0, which is not, takes" in line
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for delivery in every_third[:1000]:
            inbox.settle(delivery.tag)
        assert inbox.congested() == set()
    assert "Fetching of tasks-0 goes on." in caplog.text
    assert inbox.statistics()[TASKS].paused_by == ""


def test_too_much_unfinished_pauses_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_OUTSTANDING", 4)
    inbox = _inbox("none")
    inbox.push(TASKS, _records(TASKS, 0, 1, 2, 3), 4)
    assert _offsets(inbox) == [0, 1, 2, 3]
    assert inbox.congested() == {TASKS}
    assert inbox.statistics()[TASKS].paused_by == "outstanding"


def test_a_partition_that_is_given_up_takes_no_acknowledgement() -> None:
    inbox = _inbox("none")
    inbox.push(TASKS, _records(TASKS, 0, 1), 2)
    late = _take(inbox)
    assert inbox.busy(TASKS) == 1
    assert inbox.drop(TASKS) == 1
    inbox.open(TASKS, 0, make_order("none"), None, committed=0)
    assert not inbox.settle(late.tag)
    assert inbox.find(late.tag) is None
    assert not inbox.requeue(late.tag)
    inbox.push(TASKS, _records(TASKS, 0), 1)
    assert _offsets(inbox) == [0]
    assert inbox.drop(OTHER) == 0
    inbox.push(OTHER, _records(OTHER, 0), 1)
    inbox.committed({OTHER: None})


def test_a_partition_on_hold_and_an_expired_lease_hand_out_nothing() -> None:
    inbox = _inbox("none")
    inbox.push(TASKS, _records(TASKS, 0, 1), 2)
    inbox.hold(TASKS)
    assert inbox.flowing() == set()
    assert inbox.take({"tasks"}) is None
    inbox.hold(TASKS, held=False)
    assert inbox.flowing() == {TASKS}
    inbox.lease(time.monotonic() - 1)
    assert inbox.take({"tasks"}) is None
    assert not inbox.finished({TASKS: 2})  # they will be handed out
    inbox.lease(time.monotonic() + 60)
    assert _offsets(inbox) == [0, 1]
    assert inbox.finished({TASKS: 2})


def test_suspects_go_out_one_at_a_time_and_the_rest_beside_them() -> None:
    inbox = Inbox(max_buffered=100)
    inbox.open(TASKS, 0, make_order("none"), None, attempts={0: 1, 1: 2, 3: 1})
    inbox.push(TASKS, _records(TASKS, *range(6)), 6)
    first = _take(inbox)
    assert (first.record.offset, first.attempts, first.redelivered) == (0, 1, True)
    beside = _take(inbox)
    assert (beside.record.offset, beside.attempts, beside.redelivered) == (2, 0, False)
    assert _offsets(inbox) == [4, 5]
    inbox.settle(first.tag)
    second = _take(inbox)
    assert (second.record.offset, second.attempts) == (1, 2)
    assert inbox.take({"tasks"}) is None
    inbox.requeue(second.tag)
    again = _take(inbox)
    assert again.record.offset in (1, 3)
    assert inbox.take({"tasks"}) is None
    inbox.settle(again.tag)
    assert len(_offsets(inbox)) == 1
    assert _told(inbox).attempts in ({1: 2}, {3: 1})


def test_an_attempt_that_failed_is_counted_told_and_no_suspicion(tmp_path: Path) -> None:
    identity = JournalIdentity("c", "g", "tasks", "t", 0)
    inbox = _inbox("none", Journal(tmp_path, identity))
    inbox.push(TASKS, _records(TASKS, 0, 1), 2)
    _told(inbox)
    first, _ = _take(inbox), _take(inbox)
    assert inbox.attempt_failed(first.tag) == 1
    inbox.requeue(first.tag)
    assert TASKS in inbox.commits(uncommitted=True)
    said = _told(inbox)
    assert said.attempts == {0: 1}
    again = _take(inbox)
    assert again.attempts == 1
    assert inbox.attempt_failed(again.tag) == 2
    assert inbox.attempt_failed(12345678) == 0
    inbox.release()
    commit = inbox.commits(uncommitted=False)[TASKS]
    found = Journal(tmp_path, identity, commit.offset, commit.metadata, said.journal)
    assert found.attempts == {0: 2}
    inbox.settle(again.tag)
    assert _told(inbox).attempts == {}
