"""Lag is worked out from offsets: never negative, shown for a while after its group is gone."""

from __future__ import annotations

from kafka.structs import OffsetAndMetadata, TopicPartition

from kombu_kafka.consuming.commit_metadata import encode
from scheduler.exporter.lag import GroupOffsets, LagTracker, Offsets, Pair

P0, P1 = TopicPartition("tasks", 0), TopicPartition("tasks", 1)
OWN = Pair("g", "tasks", 0)


def commit(offset: int, metadata: str = "") -> OffsetAndMetadata:
    return OffsetAndMetadata(offset, metadata, -1)


def look(ends: dict[TopicPartition, int], **groups: GroupOffsets) -> Offsets:
    return Offsets(groups, dict.fromkeys(ends, 5), ends)


def test_lag_is_end_less_committed() -> None:
    snapshot = LagTracker().update(look({P0: 30}, g=GroupOffsets({P0: commit(10)})), 0)
    assert snapshot.lags[OWN].lag == 20
    assert snapshot.lags[OWN].committed == 10


def test_a_commit_newer_than_the_end_is_no_negative_lag() -> None:
    snapshot = LagTracker().update(look({P0: 30}, g=GroupOffsets({P0: commit(31)})), 0)
    assert snapshot.lags[OWN].lag == 0


def test_a_partition_without_a_commit_lags_by_all_that_it_holds() -> None:
    snapshot = LagTracker().update(look({P0: 30, P1: 12}, g=GroupOffsets({P0: commit(30)})), 0)
    assert snapshot.lags[Pair("g", "tasks", 1)].lag == 7
    assert snapshot.lags[Pair("g", "tasks", 1)].committed is None


def test_the_workers_own_group_is_shown_before_it_commits_anything() -> None:
    snapshot = LagTracker([("g", "tasks")]).update(look({P0: 30}), 0)
    assert snapshot.lags[OWN].lag == 25


def test_a_vanished_group_is_shown_then_expires() -> None:
    tracker = LagTracker(expire=60)
    tracker.update(look({P0: 30}, g=GroupOffsets({P0: commit(10)}, members=2)), 0)
    gone = tracker.update(look({P0: 35}), 30)
    assert gone.up == {"g": False}
    assert gone.members == {"g": 0}
    assert gone.lags[OWN].lag == 25
    later = tracker.update(look({P0: 35}), 61)
    assert not later.up
    assert not later.lags


def test_a_deleted_topic_is_not_shown() -> None:
    tracker = LagTracker()
    group = GroupOffsets({P0: commit(10)})
    assert tracker.update(look({P0: 30}, g=group), 0).lags
    assert not tracker.update(look({}, g=group), 1).lags


def test_the_drain_time_follows_the_rate_of_commits() -> None:
    tracker = LagTracker()
    first = tracker.update(look({P0: 1000}, g=GroupOffsets({P0: commit(0)})), 0)
    assert first.drain["g", "tasks"] == float("inf")
    second = tracker.update(look({P0: 1000}, g=GroupOffsets({P0: commit(200)})), 10)
    assert second.drain["g", "tasks"] == 40
    done = tracker.update(look({P0: 1000}, g=GroupOffsets({P0: commit(1000)})), 20)
    assert done.drain["g", "tasks"] == 0


def test_offsets_that_were_reset_are_no_negative_rate() -> None:
    tracker = LagTracker()
    tracker.update(look({P0: 1000}, g=GroupOffsets({P0: commit(900)})), 0)
    again = tracker.update(look({P0: 1000}, g=GroupOffsets({P0: commit(100)})), 10)
    assert again.drain["g", "tasks"] == float("inf")


def test_metadata_tells_owner_distance_and_what_is_unfinished() -> None:
    metadata = encode("w@h", 10, [range(12, 15), range(18, 20)])
    snapshot = LagTracker().update(look({P0: 30}, g=GroupOffsets({P0: commit(10, metadata)})), 0)
    lag = snapshot.lags[OWN]
    assert lag.owners == ("w@h",)
    assert lag.distance == 10
    assert lag.unfinished == 5


def test_foreign_metadata_tells_nothing() -> None:
    snapshot = LagTracker().update(look({P0: 30}, g=GroupOffsets({P0: commit(10, "hello")})), 0)
    assert snapshot.lags[OWN].owners == ()
    assert snapshot.lags[OWN].distance is None


def test_two_names_that_commit_in_turn_are_two_owners_until_one_stops() -> None:
    tracker = LagTracker()

    def at(now: float, owner: str, offset: int) -> tuple[str, ...]:
        found = GroupOffsets({P0: commit(offset, encode(owner, offset))})
        return tracker.update(look({P0: 99}, g=found), now).lags[OWN].owners

    assert at(0, "a", 10) == ("a",)
    assert at(10, "b", 11) == ("a", "b")
    assert at(20, "a", 12) == ("a", "b")
    assert at(75, "a", 13) == ("a",)


def test_an_assigned_partition_belongs_to_its_member() -> None:
    found = GroupOffsets({P0: commit(10)}, {P0: "client/10.0.0.1"}, 1)
    assert LagTracker().update(look({P0: 30}, g=found), 0).lags[OWN].owners == ("client/10.0.0.1",)


def test_what_is_too_much_is_left_out_but_never_the_workers_own() -> None:
    tracker = LagTracker([("zz", "tasks")], limit=3)
    group = GroupOffsets({P0: commit(10)})
    snapshot = tracker.update(look({P0: 30, P1: 30}, a=group, b=group, zz=group), 0)
    assert len(snapshot.lags) == 3
    assert {pair for pair in snapshot.lags if pair.group == "zz"} == {
        Pair("zz", "tasks", 0),
        Pair("zz", "tasks", 1),
    }
    assert snapshot.omitted == 3
