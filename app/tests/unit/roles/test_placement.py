"""Placement: every partition has one owner, loads are even, and changes move few."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

hostnames = st.lists(
    st.from_regex(r"[a-z]{1,8}[0-9]{0,2}", fullmatch=True), min_size=1, max_size=9, unique=True
)


@pytest.fixture(scope="session")
def placement(from_role: Callable[[str], ModuleType]) -> ModuleType:
    return from_role("celery_worker/filter_plugins/placement.py")


@given(partitions=st.integers(1, 60), hosts=hostnames)
def test_every_partition_has_one_owner_and_loads_differ_by_one_at_most(
    placement: ModuleType, partitions: int, hosts: list[str]
) -> None:
    placed = placement.place(partitions, hosts)

    assert list(placed) == hosts
    assert sorted(p for its in placed.values() for p in its) == list(range(partitions))
    loads = [len(its) for its in placed.values()]
    assert max(loads) - min(loads) <= 1


@given(partitions=st.integers(1, 60), hosts=hostnames)
def test_order_of_hosts_in_the_inventory_does_not_matter(
    placement: ModuleType, partitions: int, hosts: list[str]
) -> None:
    assert placement.place(partitions, hosts[::-1]) == placement.place(partitions, hosts)


def test_nine_partitions_over_three_hosts_are_three_each(placement: ModuleType) -> None:
    placed = placement.place(9, ["kafka1", "kafka2", "kafka3"])

    assert [len(its) for its in placed.values()] == [3, 3, 3]


@pytest.mark.parametrize(("partitions", "hosts"), [(12, 3), (24, 5), (48, 8)])
def test_adding_a_host_moves_little_more_than_its_share(
    placement: ModuleType, partitions: int, hosts: int
) -> None:
    moved = 0
    for trial in range(20):
        names = [f"worker-{trial}-{n}" for n in range(hosts + 1)]
        before = _owners(placement.place(partitions, names[:-1]))
        after = _owners(placement.place(partitions, names))
        moved += sum(before[p] != after[p] for p in before)

    assert moved / 20 <= 2 * partitions / (hosts + 1)


def test_growing_the_topic_leaves_most_partitions_where_they_are(placement: ModuleType) -> None:
    moved = 0
    for trial in range(20):
        names = [f"worker-{trial}-{n}" for n in range(3)]
        before = _owners(placement.place(6, names))
        after = _owners(placement.place(9, names))
        moved += sum(before[p] != after[p] for p in before)

    assert moved / 20 <= 1


def test_the_placement_never_changes_between_releases(placement: ModuleType) -> None:
    """A change here moves partitions on every deployed system: it must be meant."""
    assert placement.place(6, ["kafka1", "kafka2", "kafka3"]) == {
        "kafka1": [2, 5],
        "kafka2": [0, 1],
        "kafka3": [3, 4],
    }


def test_a_pinned_host_runs_its_pins_and_the_others_share_the_rest(placement: ModuleType) -> None:
    placed = placement.place(6, ["a", "b", "c"], {"a": [0, 4], "b": "auto"})

    assert placed["a"] == [0, 4]
    assert sorted(placed["b"] + placed["c"]) == [1, 2, 3, 5]
    assert len(placed["b"]) == 2


def test_a_host_pinned_to_nothing_is_drained(placement: ModuleType) -> None:
    assert placement.place(2, ["a", "b"], {"a": []}) == {"a": [], "b": [0, 1]}


@pytest.mark.parametrize(
    ("pins", "said"),
    [
        ({"a": [0, 1], "b": [1, 2]}, "Partition 1 is pinned twice"),
        ({"a": [0, 0], "b": [1, 2]}, "Partition 0 is pinned twice"),
        ({"a": [0], "b": [2]}, "No host runs partition 1:"),
        ({"a": [0, 1], "b": [2, 3]}, "Host b pins partition 3"),
        ({"a": [0, 1, -1], "b": [2]}, "Host a pins partition -1"),
        ({"a": "0,1"}, "must be a list of partition numbers"),
        ({"a": [True]}, "must be a list of partition numbers"),
    ],
)
def test_pins_that_cannot_be_are_refused_in_one_sentence(
    placement: ModuleType, pins: dict[str, object], said: str
) -> None:
    with pytest.raises(placement.PlacementError) as refused:
        placement.place(3, ["a", "b"], pins)

    sentence = str(refused.value)
    assert said in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert placement.fault(3, ["a", "b"], pins) == sentence


@pytest.mark.parametrize("partitions", [0, -1, "6", None, True])
def test_a_number_of_partitions_that_cannot_be_is_refused(
    placement: ModuleType, partitions: object
) -> None:
    assert "celery_partitions is" in placement.fault(partitions, ["a"], {})


def test_no_hosts_are_refused(placement: ModuleType) -> None:
    assert "celery_workers is empty" in placement.fault(6, [], {})


def test_a_host_that_comes_and_goes_at_once_is_refused(placement: ModuleType) -> None:
    assert "Host b is in celery_workers and in" in placement.fault(6, ["a", "b"], {}, ["b"])
    assert placement.fault(6, ["a"], {}, ["b"]) == ""


def test_a_host_that_vanished_from_the_inventory_is_named_with_its_partitions(
    placement: ModuleType,
) -> None:
    records = [{"a": [0, 1], "b": [2]}, {"a": [0], "b": [5, 2], "c": []}]

    assert placement.lost(records, ["a"]) == {"b": [2, 5]}
    sentence = placement.lost_fault(records, ["a"])
    assert "Host b ran partitions 2, 5" in sentence
    assert "celery_worker_lost_hosts=b" in sentence
    assert placement.lost_fault(records, ["a"], ["b"]) == ""
    assert placement.lost_fault(records, ["a", "b"]) == ""
    assert placement.lost_fault([], ["a"]) == ""


def _owners(placed: dict[str, list[int]]) -> dict[int, str]:
    return {p: host for host, its in placed.items() for p in its}
