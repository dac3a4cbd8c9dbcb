"""Waiting between two polls: what ends it, and that it is not polled meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.future import Future
from kafka.structs import OffsetAndMetadata

from kombu_kafka.clients import fetching
from kombu_kafka.clients.fetching import settled, wait

LONG = 60.0


@pytest.fixture
def client() -> Any:
    """What `wait` sees of a consumer that reads one partition, with a request under way."""
    return SimpleNamespace(
        _fetcher=SimpleNamespace(
            _fetch_futures=[Future()],
            _reset_task=None,
            _validation_task=None,
            _nodes_with_pending_fetch_requests={1},
        ),
        _cluster=SimpleNamespace(leader_for_partition={"tasks-0": 1, "tasks-1": 2}.get),
        _coordinator=SimpleNamespace(need_rejoin=lambda: False, rejoining=False, coordinator_id=1),
        _subscription=SimpleNamespace(fetchable_partitions=lambda: ["tasks-0"]),
    )


def waiting(client: Any, wake: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=wait, args=(client, wake, LONG), daemon=True)
    thread.start()
    return thread


def test_an_answer_ends_the_wait(client: Any) -> None:
    thread = waiting(client, threading.Event())
    client._fetcher._fetch_futures[0].success(None)
    thread.join(LONG / 2)
    assert not thread.is_alive()


def test_a_request_that_fails_ends_it_too(client: Any) -> None:
    thread = waiting(client, threading.Event())
    client._fetcher._fetch_futures[0].failure(OSError())
    thread.join(LONG / 2)
    assert not thread.is_alive()


def test_an_answer_that_came_after_the_poll_is_not_missed(client: Any) -> None:
    client._fetcher._fetch_futures[0].success(None)
    waiting(client, threading.Event()).join(LONG / 2)
    wake = threading.Event()
    wait(client, wake, LONG)
    assert wake.is_set()


def test_whoever_asks_something_of_the_thread_ends_it(client: Any) -> None:
    wake = threading.Event()
    thread = waiting(client, wake)
    wake.set()
    thread.join(LONG / 2)
    assert not thread.is_alive()


def test_a_member_that_must_rejoin_does_not_wait(client: Any) -> None:
    client._coordinator.need_rejoin = lambda: True
    assert not settled(client)
    wait(client, threading.Event(), LONG)


def test_nor_does_one_whose_rebalance_is_under_way(client: Any) -> None:
    """It would stay without heartbeats; only the next poll asks for the rest of it."""
    client._coordinator.rejoining = True
    assert not settled(client)
    wait(client, threading.Event(), LONG)


def test_a_member_hears_of_a_rebalance_while_it_waits(client: Any) -> None:
    answers = iter([False, True])
    client._coordinator.need_rejoin = lambda: next(answers)
    wait(client, threading.Event(), LONG)
    assert list(answers) == []


@pytest.mark.parametrize("partitions", [["tasks-1"], ["tasks-0", "tasks-1"], ["no-leader-0"]])
def test_nobody_waits_long_where_a_request_could_not_be_sent(
    client: Any, partitions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though another broker holds one that will be answered much later."""
    monkeypatch.setattr(fetching, "LOOK_SECONDS", LONG)
    client._subscription.fetchable_partitions = lambda: partitions
    thread = waiting(client, threading.Event())
    thread.join(LONG / 2)
    assert not thread.is_alive()


def test_a_client_without_a_coordinator_is_polled_the_old_way(client: Any) -> None:
    assert settled(client)
    client._coordinator.coordinator_id = None
    assert not settled(client)


@pytest.mark.parametrize("read", [fetching.poll, fetching.answered])
@pytest.mark.parametrize(("after", "kept"), [(7, 3), (8, -1)])
def test_which_leader_wrote_what_was_read_last_is_not_forgotten(
    after: int, kept: int, read: Callable[[Any], Any]
) -> None:
    """An answer without records is none; a position that moved is another."""
    state = SimpleNamespace(position=OffsetAndMetadata(7, "", 3))

    def answer() -> dict[str, Any]:
        state.position = OffsetAndMetadata(after, "", -1)
        return {}

    client = SimpleNamespace(
        _coordinator=SimpleNamespace(need_rejoin=lambda: False, rejoining=False, coordinator_id=1),
        _fetcher=SimpleNamespace(
            _next_partition_records=None, fetched_records=lambda: (answer(), False)
        ),
        _subscription=SimpleNamespace(assignment={"tasks-0": state}),
        poll=answer,
    )
    assert read(client) == {}
    assert state.position.leader_epoch == kept
