"""Workers that share the partitions of a consumer group."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from kafka.cluster import ClusterMetadata
from kafka.future import Future
from kafka.structs import MemberState
from kombu import Queue

from kombu_kafka.consumer import POLL_MS
from kombu_kafka.errors import NotOwnerError
from kombu_kafka.ownership import group as ownership_group
from kombu_kafka.ownership.assignor import Assignor
from kombu_kafka.ownership.group import GroupOwnership
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .conftest import Connect, Look
from .members import Member, settled


def test_two_share_four_partitions_and_one_takes_over(
    connect: Connect, look: Look, topic: str, publish: Any
) -> None:
    first = Member(connect(group_id=topic), topic)
    settled(topic, first, sizes=[4])
    publish(topic, range(40))
    eventually(lambda: len(first.got) == 40)
    second = Member(connect(group_id=topic), topic)
    settled(topic, first, second, sizes=[2, 2])
    publish(topic, range(40, 80))
    eventually(lambda: len(first.got) + len(second.got) == 80)
    assert sorted(first.numbers() + second.numbers()) == list(range(80))
    second.leave()
    settled(topic, first, sizes=[4])
    publish(topic, range(80, 120))
    eventually(lambda: len(first.got) + len(second.got) == 120)
    assert sorted(first.numbers() + second.numbers()) == list(range(120))
    first.leave()


def test_a_task_longer_than_every_timeout_keeps_its_worker_in_the_group(
    connect: Connect, look: Look, topic: str, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop is held up, as by the solo pool; the consumer's thread goes on."""
    settings = GroupOwnership.settings
    # No shorter: a thread that a busy machine holds up for some seconds is no fault.
    monkeypatch.setattr(
        GroupOwnership, "settings", lambda self: settings(self) | {"max_poll_interval_ms": 6000}
    )
    slow = Member(connect(group_id=topic, session_timeout=6.0), topic)
    settled(topic, slow, sizes=[4])
    generation = slow.generation()
    slow.on_message = lambda message: time.sleep(9)
    publish(topic, range(1))
    eventually(lambda: slow.numbers() == [0])
    slow.on_message = lambda message: None
    publish(topic, range(1, 5))
    eventually(lambda: sorted(slow.numbers()) == list(range(5)))
    assert slow.generation() == generation


def test_a_revoked_partition_finishes_what_runs(
    connect: Connect, look: Look, topic: str, publish: Any
) -> None:
    publish(topic, range(8))
    first = Member(connect(group_id=topic, ordering="partition"), topic, acknowledge=False)
    eventually(lambda: len(first.got) == 4)  # one of each partition, by the order
    second = Member(connect(group_id=topic, ordering="partition"), topic)
    # What is in flight holds both partitions that were taken away.
    eventually(lambda: len(_draining(first)) == 2)
    assert second.got == []
    _after_steps(first, 3)
    for message in list(first.got):
        first.call(message.ack)
    settled(topic, first, second, sizes=[2, 2])
    eventually(lambda: len(first.got) == 6)  # the next of each that it kept, which it holds
    first.acknowledge = True
    for message in first.got[4:]:
        first.call(message.ack)
    eventually(lambda: len(first.got) + len(second.got) == 8)
    assert sorted(first.numbers() + second.numbers()) == list(range(8))


def test_what_is_not_finished_in_time_runs_elsewhere_and_its_acknowledgement_is_dropped(
    connect: Connect, topic: str, publish: Any, caplog: pytest.LogCaptureFixture
) -> None:
    publish(topic, range(4))
    first = Member(connect(group_id=topic, revoke_timeout=0.5), topic, acknowledge=False)
    eventually(lambda: len(first.got) == 4)
    second = Member(connect(group_id=topic), topic)
    settled(topic, first, second, sizes=[2, 2])
    eventually(lambda: len(second.got) == 2)
    assert "1 message of" in caplog.text
    assert "will run again there" in caplog.text
    for message in first.got:
        first.call(message.ack)
    eventually(lambda: "A late acknowledgement was dropped" in caplog.text)
    assert first.error is None
    publish(topic, range(4, 8))
    first.acknowledge = True
    eventually(lambda: len(first.got) + len(second.got) == 10)


def test_a_worker_that_was_lost_comes_back(
    connect: Connect, topic: str, publish: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not heard of for the session timeout: its partitions go to another, and it joins again."""
    first = Member(connect(group_id=topic, session_timeout=1.0), topic)
    second = Member(connect(group_id=topic), topic)
    settled(topic, first, second, sizes=[2, 2])
    consumer = first.transport.consumer
    coordinator = consumer._ownership.client._coordinator
    step, consumer._step = consumer._step, lambda: consumer._stop.wait(0.05)
    coordinator._disable_heartbeat()
    settled(topic, second, sizes=[4])
    publish(topic, range(8))
    eventually(lambda: len(second.got) == 8)
    coordinator._enable_heartbeat()
    consumer._step = step
    settled(topic, first, second, sizes=[2, 2])
    assert "had no sign of life of this worker for 1 seconds" in caplog.text
    assert first.got == []


def test_a_name_that_comes_back_gets_its_partitions_without_a_rebalance(
    connect: Connect, topic: str, publish: Any
) -> None:
    """Static membership, and what happens to two workers of one name."""
    options = {"group_id": topic, "worker_name": "one@host"}
    other = Member(connect(group_id=topic, worker_name="two@host"), topic)
    first = Member(connect(**options), topic)
    settled(topic, other, first, sizes=[2, 2])
    before = first.partitions()
    eventually(lambda: other.generation() == first.generation() is not None)  # all have joined
    generation = other.generation()
    first.be_another_process()
    again = Member(connect(**options), topic)
    error = eventually(lambda: first.error)
    assert isinstance(error, NotOwnerError)
    assert "under this worker's name, one@host" in str(error)
    eventually(lambda: again.partitions() == before)
    eventually(lambda: again.generation() == other.generation() == generation)


def test_a_worker_killed_halfway_through_a_rebalance_ends_it_when_it_is_back(
    connect: Connect, topic: str, publish: Any
) -> None:
    """It had agreed to give partitions up, and was killed before it said that it had."""
    options = {"group_id": topic, "worker_name": "one@host"}
    first = Member(connect(**options), topic)
    settled(topic, first, sizes=[4])
    consumer = first.transport.consumer
    ownership = consumer._ownership
    revoke = ownership.on_partitions_revoked

    def revoke_and_die(partitions: Any) -> None:
        revoke(partitions)
        ownership.client._coordinator.request_rejoin = lambda: None
        consumer._step = lambda: consumer._stop.wait(0.1)

    ownership.on_partitions_revoked = revoke_and_die
    other = Member(connect(group_id=topic, worker_name="two@host"), topic)
    eventually(lambda: len(ownership._draining) == 2)
    assert other.partitions() in (None, set())
    first.be_another_process()
    again = Member(connect(**options), topic)
    settled(topic, other, again, sizes=[2, 2])
    publish(topic, range(8))
    eventually(lambda: sorted(again.numbers() + other.numbers()) == list(range(8)))


def test_topics_that_appear_and_grow(
    connect: Connect,
    kafka: LocalKafka,
    topic_name: str,
    publish: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ownership_group, "METADATA_MAX_AGE_MS", 500)
    first, second = (Member(connect(group_id=topic_name), topic_name) for _ in range(2))
    for member in (first, second):
        eventually(lambda: topic_name in member.transport.consumer._ownership.absent.names)  # noqa: B023
    assert first.partitions() is None
    kafka.create_topic(topic_name, 2)
    settled(topic_name, first, second, sizes=[1, 1])
    kafka.admin().create_partitions({topic_name: 4})
    settled(topic_name, first, second, sizes=[2, 2])
    publish(topic_name, range(8))
    eventually(lambda: sorted(first.numbers() + second.numbers()) == list(range(8)))


def test_a_member_knows_its_topics_before_it_joins(
    connect: Connect, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late the brokers say which partitions there are: one rebalance, not two."""
    refresh, assign = ClusterMetadata._do_refresh_metadata, Assignor.assign
    dealt: list[set[int] | None] = []

    async def refresh_late(self: Any, node_id: Any) -> None:
        late = time.monotonic() + 2
        while topic in self._topics and not dealt and time.monotonic() < late:
            await self._manager._net.sleep(0.05)
        await refresh(self, node_id)

    def note(self: Assignor, cluster: Any, members: Any) -> Any:
        dealt.append(cluster.partitions_for_topic(topic))
        return assign(self, cluster, members)

    monkeypatch.setattr(ClusterMetadata, "_do_refresh_metadata", refresh_late)
    monkeypatch.setattr(Assignor, "assign", note)
    member = Member(connect(group_id=topic), topic)
    settled(topic, member, sizes=[4])
    assert dealt == [set(range(4))]


def test_a_rebalance_that_outlasts_a_poll_comes_to_its_end(
    connect: Connect,
    kafka: LocalKafka,
    topic_name: str,
    publish: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A topic grows, and its leader is slow to deal the partitions out."""
    monkeypatch.setattr(ownership_group, "METADATA_MAX_AGE_MS", 500)
    assign = Assignor.assign

    def assign_slowly(self: Assignor, cluster: Any, members: Any) -> Any:
        time.sleep(3 * POLL_MS / 1000)
        return assign(self, cluster, members)

    kafka.create_topic(topic_name, 2)
    member = Member(connect(group_id=topic_name), topic_name)
    settled(topic_name, member, sizes=[2])
    monkeypatch.setattr(Assignor, "assign", assign_slowly)
    kafka.admin().create_partitions({topic_name: 4})
    settled(topic_name, member, sizes=[4])
    publish(topic_name, range(8))
    eventually(lambda: sorted(member.numbers()) == list(range(8)))
    assert "joins anew" not in caplog.text


def test_a_queue_is_added_in_a_group_of_two(
    connect: Connect, kafka: LocalKafka, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The rebalance lasts until the other member's next heartbeat."""
    other = f"{topic}-other"
    kafka.create_topic(other, 1)
    first, second = (Member(connect(group_id=topic), topic) for _ in range(2))
    settled(topic, first, second, sizes=[2, 2])
    first.call(lambda: first.consumer.add_queue(Queue(other)))
    first.call(lambda: first.consumer.consume())
    settled(other, first, sizes=[1])
    settled(topic, first, second, sizes=[2, 2])
    assert "joins anew" not in caplog.text


@pytest.mark.parametrize("name", [None, "one@host"])
def test_a_member_that_is_stuck_in_a_rebalance_joins_anew(
    connect: Connect,
    look: Look,
    topic: str,
    publish: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str | None,
) -> None:
    """A client that never comes to the end of a rebalance is replaced; nothing is lost."""
    member = Member(connect(group_id=topic, worker_name=name), topic, acknowledge=False)
    settled(topic, member, sizes=[4])
    publish(topic, range(4))
    eventually(lambda: len(member.got) == 4)
    ownership = member.transport.consumer._ownership
    stuck, standstill = ownership.client, ownership._standstill
    seconds, options = standstill.seconds, standstill._options

    def impatient(coordinator: Any) -> Any:
        of_stuck = coordinator is stuck._coordinator
        standstill._options = replace(options, session_timeout=1.0) if of_stuck else options
        return seconds(coordinator)

    async def never() -> None:
        stuck._coordinator.state = MemberState.REBALANCING
        await Future()

    monkeypatch.setattr(standstill, "seconds", impatient)
    monkeypatch.setattr(stuck._coordinator, "_do_join_and_sync_async", never)
    stuck._coordinator.request_rejoin()
    eventually(lambda: len(member.got) == 8, 120)
    assert ownership.client is not stuck
    assert (
        caplog.text.count(
            "it joins anew, with a new client, and what was in flight runs again (4 messages)"
        )
        == 1
    )
    late, again = member.got[:4], member.got[4:]
    assert sorted(message.payload["n"] for message in again) == list(range(4))
    for message in (*late, *again):
        member.call(message.ack)
    eventually(lambda: look.committed(topic, topic) == dict.fromkeys(range(4), 1))
    member.acknowledge = True
    publish(topic, range(4, 8))
    eventually(lambda: len(member.got) == 12)


def test_members_get_partitions_of_their_own_topics_alone(
    connect: Connect, kafka: LocalKafka, topic: str, publish: Any
) -> None:
    other = f"{topic}-other"
    kafka.create_topic(other, 4)
    both = Member(connect(group_id=topic), topic, other)
    alone = Member(connect(group_id=topic), other)
    eventually(lambda: both.partitions() and alone.partitions())

    def shares() -> bool:
        mine, its = both.partitions(), alone.partitions()
        return (
            mine is not None
            and its is not None
            and {name for name, _ in its} == {other}
            and {(topic, number) for number in range(4)} <= mine
            and len(mine) + len(its) == 8
            and not mine & its
        )

    eventually(shares, 120)
    publish(topic, range(4))
    publish(other, range(4, 8))
    eventually(lambda: len(both.got) + len(alone.got) == 8)


def test_a_queue_is_added_and_cancelled_while_the_worker_runs(
    connect: Connect, kafka: LocalKafka, look: Look, topic: str, publish: Any
) -> None:
    other = f"{topic}-other"
    kafka.create_topic(other, 1)
    first = Member(connect(group_id=topic), topic)
    settled(topic, first, sizes=[4])
    first.call(lambda: first.consumer.add_queue(Queue(other)))
    first.call(lambda: first.consumer.consume())
    settled(other, first, sizes=[1])
    publish(other, range(2), partition=0)
    eventually(lambda: first.numbers() == [0, 1])
    second = Member(connect(group_id=topic), topic)
    first.call(lambda: first.consumer.cancel_by_queue(topic))
    settled(topic, first, second, sizes=[0, 4])
    eventually(lambda: {name for name, _ in first.partitions() or ()} == {other})
    publish(topic, range(2, 6))
    eventually(lambda: sorted(second.numbers()) == [2, 3, 4, 5])
    publish(other, range(6, 7), partition=0)
    eventually(lambda: first.numbers() == [0, 1, 6])


@pytest.mark.parametrize("ordering", ["key", "partition"])
def test_order_holds_in_a_group(connect: Connect, topic: str, publish: Any, ordering: str) -> None:
    members = [
        Member(connect(group_id=topic, ordering=ordering), topic, acknowledge=False)
        for _ in range(2)
    ]
    settled(topic, *members, sizes=[2, 2])
    for number in range(3):
        publish(topic, range(number * 4, number * 4 + 4), partition_key="k")
    got: list[int] = []
    for _ in range(3):
        eventually(lambda: sum(len(member.got) for member in members) == len(got) + 4)
        got.extend(range(4))
        for member in members:
            for message in member.got[-2:]:
                member.call(message.ack)
    for member in members:
        by_partition: dict[int, list[int]] = {}
        for message in member.got:
            where = message.delivery_info["partition"]
            by_partition.setdefault(where, []).append(message.payload["n"])
        assert all(numbers == sorted(numbers) for numbers in by_partition.values())


def _after_steps(member: Member, number: int) -> None:
    """Wait until the consumer's thread has gone through its duties some times."""
    ownership = member.transport.consumer._ownership
    step, done = ownership.step, []

    def counted(topics: Any) -> None:
        step(topics)
        done.append(topics)

    ownership.step = counted
    eventually(lambda: len(done) >= number)
    ownership.step = step


def _draining(member: Member) -> set[Any]:
    return set(member.transport.consumer._ownership._draining)
