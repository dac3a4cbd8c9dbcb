"""Where the consumer's thread and the event loop meet."""

from __future__ import annotations

import select
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kafka.structs import TopicPartition

from kombu_kafka.inbox import Inbox
from kombu_kafka.journal import Journal, JournalIdentity
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


def _uncommitted(inbox: Inbox) -> dict[TopicPartition, int]:
    return inbox.watermarks(uncommitted=True)


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
    inbox.committed({TASKS: 5})
    assert _uncommitted(inbox) == {}


def test_where_nothing_was_committed_the_beginning_is(  # or lag could not be read before a task
) -> None:
    inbox = Inbox(max_buffered=3)
    inbox.open(TASKS, 7, make_order("none"), None, committed=None)
    assert _uncommitted(inbox) == {TASKS: 7}
    inbox.committed({TASKS: 7})
    assert _uncommitted(inbox) == {}
    assert inbox.watermarks(uncommitted=False) == {TASKS: 7}


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

    def readable() -> bool:
        return bool(select.select([inbox.wakeup.fd], [], [], 0)[0])

    assert not readable()
    inbox.push(TASKS, _records(TASKS, 0), 1)
    assert readable()
    inbox.wakeup.clear()
    assert not readable()
    inbox.release()
    inbox.wakeup.set()
