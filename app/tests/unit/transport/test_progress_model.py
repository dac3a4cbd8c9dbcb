"""Random schedules of everything that can happen to a partition, against a model.

Deliveries, acknowledgements, returns, retries and rejections; commits that arrive, that get lost, and
whose confirmation gets lost; deaths that keep the journal, tear its last line or take the host away;
partitions that move to another host and back; offsets moved by a person; a log that loses its end. Kafka
is the smallest stand-in: a log and a commit. What must hold is said by the model alone: of one partition,
or of one key, never two at once and never out of order; none lost; none again that was acknowledged and
is known to a survivor.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from kafka.structs import OffsetAndMetadata, TopicPartition

from kombu_kafka.consuming import attempts, lanes
from kombu_kafka.consuming.commit_metadata import decode
from kombu_kafka.consuming.inbox import Delivery, Inbox
from kombu_kafka.consuming.lanes import open_lane
from kombu_kafka.options import Options

TASKS = TopicPartition("tasks", 0)
KEYS = st.sampled_from([None, b"a", b"b"])


class Log:
    """One partition's records and the group's commit, with the client's methods that are used."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.end = 0
        self.commit: OffsetAndMetadata | None = None
        self.position = 0
        #: The leaders' epochs, and the offset each began at.
        self.epochs = [(0, 0)]
        self._cluster = SimpleNamespace(cluster_id="c", topic_id=lambda _: "t")
        self._subscription = SimpleNamespace(seek=lambda *_: None)

    def append(self, key: bytes | None, gap: int) -> None:
        offset = self.end + gap  # a gap: a transaction's marker, a compacted record
        self.records.append(
            SimpleNamespace(topic="tasks", partition=0, offset=offset, value=b"", headers=[],
                            timestamp=1000 * self.epochs[-1][0] + offset, key=key)
        )  # fmt: skip
        self.end = offset + 1

    def cut(self, offset: int) -> None:
        """Lose what lies from `offset` on: a leader takes over that does not have it."""
        epoch = self.epochs[-1][0] + 1
        self.end = min(self.end, offset)
        self.records = [record for record in self.records if record.offset < self.end]
        self.epochs = [found for found in self.epochs if found[1] < self.end]
        self.epochs.append((epoch, self.end))

    def end_of(self, epoch: int) -> int:
        return next((start for other, start in self.epochs if other > epoch), self.end)

    def epoch_before(self, offset: int) -> int:
        return max((epoch for epoch, start in self.epochs if start < offset), default=-1)

    def committed(self, _: TopicPartition, metadata: bool) -> OffsetAndMetadata | None:
        return self.commit

    def beginning_offsets(self, _: object) -> dict[TopicPartition, int]:
        return {TASKS: 0}

    def end_offsets(self, _: object) -> dict[TopicPartition, int]:
        return {TASKS: self.end}

    def seek(self, _: TopicPartition, position: int) -> None:
        self.position = position


class Progress(RuleBasedStateMachine):
    """One partition; `ordering` is set by the test."""

    ordering = "none"

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.log = Log()
        self.host = 0
        self.out: list[Delivery] = []
        #: Rejected: their dead letters are on the way.
        self.rejected: list[Delivery] = []
        #: Acknowledged since a person last wanted it to run again.
        self.acknowledged: set[int] = set()
        #: What a survivor knows of that: these must not run again.
        self.safe: set[int] = set()
        #: Below a person's word: need not run.
        self.passed_over = 0
        #: The acknowledgements in the order in which the journal was told.
        self.journalled: list[int] = []
        #: The commit that each host knows of.
        self.words: dict[int, OffsetAndMetadata | None] = {}

    @initialize()
    def start(self) -> None:
        options = Options(
            hosts=("h:1",), ordering=self.ordering, state_directory=str(self.state), max_buffered=5
        )
        self.inbox = Inbox(options.max_buffered, owner=f"worker-{self.host}")
        self.out, self.rejected, self.journalled = [], [], []
        self.words[self.host] = self.log.commit
        open_lane(self.log, self.inbox, options, TASKS)

    @property
    def state(self) -> Path:
        return self.directory / str(self.host)

    def stop(self) -> None:
        self.inbox.close()
        self.inbox.release()
        attempts._left.clear()

    def known_to_kafka(self) -> set[int]:
        if self.log.commit is None:
            return set()
        said = decode(self.log.commit.metadata)
        done = {offset for found in said.done for offset in found} if said else set()
        below = {offset for offset in self.acknowledged if offset < self.log.commit.offset}
        return below | (done & self.acknowledged)

    # What happens

    @rule(key=KEYS, gap=st.integers(0, 2), count=st.integers(1, 6))
    def produce(self, key: bytes | None, gap: int, count: int) -> None:
        for _ in range(count):
            self.log.append(key, gap)

    def fetch(self, count: int) -> None:
        if self.inbox.congested():
            return
        found = [record for record in self.log.records if record.offset >= self.log.position]
        batch = found[:count]
        self.log.position = batch[-1].offset + 1 if batch else self.log.end
        position = self.log.position
        self.inbox.push(TASKS, batch, position, self.log.epoch_before(position))

    @rule(counts=st.lists(st.integers(1, 8), min_size=1, max_size=4))
    def work(self, counts: list[int]) -> None:
        """Fetch some, take what may go."""
        for count in counts:
            self.fetch(count)
            for _ in range(count):
                self.take()

    def take(self) -> None:
        delivery = self.inbox.take({"tasks"})
        if delivery is None:
            return
        record = delivery.record
        assert record.offset not in self.safe, "done and known, and again"
        busy = [*self.out, *self.rejected]
        assert record.offset not in {other.record.offset for other in busy}
        group = self.group(record)
        if group is not None:
            assert group not in [self.group(other.record) for other in busy], "two at once"
            before = {
                other.offset for other in self.log.records
                if other.offset < record.offset and self.group(other) == group
                and other.offset >= self.passed_over
            }  # fmt: skip
            assert before <= self.acknowledged, "out of order"
        self.out.append(delivery)

    def group(self, record: Any) -> object:
        if self.ordering == "none" or (self.ordering == "key" and record.key is None):
            return None
        return record.key if self.ordering == "key" else "partition"

    @precondition(lambda self: self.out)
    @rule(some=st.lists(st.integers(0, 9), min_size=1, max_size=6))
    def finish(self, some: list[int]) -> None:
        for which in some:
            if self.out:
                self.acknowledge(which)

    def acknowledge(self, which: int) -> None:
        self.settle(self.out.pop(which % len(self.out)))

    def settle(self, delivery: Delivery) -> None:
        assert self.inbox.settle(delivery.tag)
        offset = delivery.record.offset
        self.acknowledged.add(offset)
        self.safe.add(offset)
        self.journalled.append(offset)

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 9), gap=st.integers(0, 2), survives=st.booleans())
    def retry(self, which: int, gap: int, survives: bool) -> None:
        """Queue it once more at the end, then acknowledge it, unless death comes in between."""
        delivery = self.out[which % len(self.out)]
        self.log.append(delivery.record.key, gap)
        if survives:
            self.acknowledge(which)
        else:
            self.die(0)

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 9))
    def reject(self, which: int) -> None:
        """It becomes a dead letter; nothing is settled before that is confirmed."""
        self.rejected.append(self.out.pop(which % len(self.out)))

    @precondition(lambda self: self.rejected)
    @rule(which=st.integers(0, 9))
    def confirm_letter(self, which: int) -> None:
        self.settle(self.rejected.pop(which % len(self.rejected)))

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 9), failed=st.booleans())
    def give_back(self, which: int, failed: bool) -> None:
        delivery = self.out.pop(which % len(self.out))
        if failed:
            assert self.inbox.attempt_failed(delivery.tag) == delivery.attempts + 1
            self.journalled.append(-1)
        assert self.inbox.requeue(delivery.tag)

    @rule(stored=st.booleans(), confirmed=st.booleans(), all_of_it=st.booleans())
    def commit(self, stored: bool, confirmed: bool, all_of_it: bool) -> None:
        commits = self.inbox.commits(uncommitted=not all_of_it)
        if TASKS not in commits or not stored:
            return
        before = self.known_to_kafka()
        self.log.commit = commits[TASKS]
        assert before <= self.known_to_kafka(), "Kafka was made to forget"
        if confirmed:
            self.confirm(commits)

    def confirm(self, commits: dict[TopicPartition, OffsetAndMetadata]) -> None:
        self.inbox.committed(commits)
        self.words[self.host] = commits[TASKS]
        self.journalled.append(-1)

    @precondition(lambda self: self.journalled or self.out or self.rejected)
    @rule(torn=st.integers(0, 12), data=st.data())
    def disturb(self, torn: int, data: st.DataObject) -> None:
        """Die, most often; or something worse."""
        kinds = ["die", "die", "die", "lose", "move", "leave", "reset", "cut"]
        kind = data.draw(st.sampled_from(kinds))
        if kind == "die":
            self.die(torn)
        elif kind == "lose":
            self.lose_the_host()
        elif kind == "reset":
            self.move_the_offset_by_hand(data.draw(st.integers(0, self.log.end)))
        elif kind == "cut":
            where = st.integers(0, self.log.end) | st.just(self.log.end)
            self.cut_the_log(data.draw(where), data.draw(st.lists(KEYS, max_size=8)))
        else:
            self.move_to_the_other_host(in_order=kind == "leave")

    def die(self, torn: int) -> None:
        self.stop()
        path = self.state / "tasks-0.journal"
        if torn and self.journalled:
            path.write_bytes(path.read_bytes()[:-torn])
            self.safe -= {self.journalled[-1]} - self.known_to_kafka()
        self.start()

    def lose_the_host(self) -> None:
        self.stop()
        shutil.rmtree(self.state)
        self.safe = self.known_to_kafka()
        self.start()

    def move_to_the_other_host(self, in_order: bool) -> None:
        if in_order:
            self.commit(True, True, False)
        self.inbox.drop(TASKS)
        self.stop()
        self.host = 1 - self.host
        self.safe = self.known_to_kafka()
        self.start()

    def move_the_offset_by_hand(self, offset: int) -> None:
        moved = OffsetAndMetadata(offset, "", -1)
        if moved in self.words.values():
            return  # a second time to the same place, and no worker has committed since: nobody can tell
        self.stop()
        self.log.commit = moved
        self.acknowledged = {done for done in self.acknowledged if done < offset}
        self.safe = set(self.acknowledged)
        self.passed_over = offset
        self.start()

    def cut_the_log(self, offset: int, keys: list[bytes | None]) -> None:
        """Another leader has less (or all of it); what is queued next lies where something else lay."""
        self.stop()
        self.log.cut(offset)
        for key in keys:
            self.log.append(key, 0)
        self.acknowledged = {done for done in self.acknowledged if done < offset}
        self.safe = {done for done in self.safe if done < offset}
        if self.log.commit is not None and self.log.commit.leader_epoch < 0:
            # A person's word: whose records it was about nobody can say.
            self.safe = set()
            self.passed_over = max(self.passed_over, self.log.commit.offset)
        self.start()
        commits = self.inbox.commits(uncommitted=False)
        self.log.commit = commits[TASKS]
        self.confirm(commits)

    # What must hold

    @invariant()
    def nothing_is_committed_that_is_not_done(self) -> None:
        if self.log.commit is None:
            return
        said = decode(self.log.commit.metadata)
        for record in self.log.records:
            offset = record.offset
            told = offset < self.log.commit.offset or (
                said is not None and any(offset in found for found in said.done)
            )
            assert not told or offset in self.acknowledged or offset < self.passed_over

    def teardown(self) -> None:
        """Everything that is left runs, and then all is done."""
        if not hasattr(self, "inbox"):
            return
        while True:
            while self.rejected:
                self.confirm_letter(0)
            while self.out:
                self.acknowledge(0)
            before = self.log.position
            self.fetch(100)
            self.take()
            if not self.out and self.log.position == before == self.log.end:
                break
        commits = self.inbox.commits(uncommitted=False)
        assert commits[TASKS].offset == self.log.end
        offsets = {record.offset for record in self.log.records}
        assert {offset for offset in offsets if offset >= self.passed_over} <= self.acknowledged
        self.stop()
        shutil.rmtree(self.directory)


@pytest.fixture(autouse=True)
def asks_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a leader's records end is for the log to say, without a broker."""
    monkeypatch.setattr(lanes, "end_of_epoch", lambda log, _, epoch: log.end_of(epoch))


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
def test_whatever_happens(ordering: str) -> None:
    machine = type("Ordered", (Progress,), {"ordering": ordering})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=60, stateful_step_count=40),
    )


def test_a_new_leader_makes_nothing_run_again() -> None:
    """What was done of its records is known to the journal alone when the process dies; none was lost."""
    machine = Progress()
    machine.start()
    machine.produce(None, 0, 1)
    machine.work([1])
    machine.finish([0])
    machine.commit(stored=True, confirmed=True, all_of_it=False)
    machine.log.cut(machine.log.end)
    machine.produce(None, 0, 2)
    machine.work([2])
    machine.finish([0, 0])
    machine.die(0)
    machine.work([2])
    assert not machine.out
    machine.teardown()


def test_what_lies_ahead_stays_known_while_an_older_leaders_records_are_read() -> None:
    """The commit's epoch is that of the latest record it speaks of, not of the last that was read."""
    machine = Progress()
    machine.start()
    machine.produce(None, 0, 3)
    machine.log.cut(machine.log.end)
    machine.produce(None, 0, 1)
    machine.work([4])
    machine.finish([1, 1, 1])
    machine.commit(stored=True, confirmed=True, all_of_it=False)
    machine.move_to_the_other_host(in_order=False)
    machine.work([1])
    machine.commit(stored=True, confirmed=True, all_of_it=True)
    machine.move_to_the_other_host(in_order=False)
    machine.work([4])
    assert [delivery.record.offset for delivery in machine.out] == [0]
    machine.teardown()
