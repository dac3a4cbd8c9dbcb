"""Commits of bound partitions go on beside reading."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from kombu_kafka.ownership.fence import Fence
from kombu_kafka.ownership.static import StaticOwnership
from tests.eventually import eventually

from .conftest import Connect, Look
from .test_consume import Reader

Publish = Callable[..., None]


class SlowCommits:
    """Commits that go on until they may end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        commit = Fence.commit

        async def slow(fence: Fence, *told: Any) -> None:
            self.begun.set()
            while not self.may_end.is_set():
                await fence._client._net.sleep(0.01)
            await commit(fence, *told)

        monkeypatch.setattr(Fence, "commit", slow)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> SlowCommits:
    return SlowCommits(monkeypatch)


def test_messages_come_while_a_commit_is_on_its_way(
    connect: Connect, publish: Publish, look: Look, topic: str, commits: SlowCommits
) -> None:
    reader = Reader(connect(partitions=[0]), topic)
    for number in range(5):
        publish(topic, range(number, number + 1), partition=0)
        message = reader.read()
        assert message.delivery_info["offset"] == number
        message.ack()
        assert commits.begun.wait(60)
    assert look.committed(topic)[0] in (None, 0)
    commits.may_end.set()
    eventually(lambda: look.committed(topic)[0] == 5)


def test_an_end_waits_for_a_commit_and_commits_what_was_done_since(
    connect: Connect, publish: Publish, look: Look, topic: str, commits: SlowCommits
) -> None:
    connection = connect(partitions=[0])
    reader = Reader(connection, topic)
    for number in range(2):
        publish(topic, range(number, number + 1), partition=0)
        reader.read().ack()
        assert commits.begun.wait(60)
    consumer = connection.transport.consumer
    connection.close()
    ending = threading.Thread(target=consumer.join)
    ending.start()
    assert look.committed(topic)[0] in (None, 0)
    commits.may_end.set()
    ending.join(30)
    assert not ending.is_alive()
    # Kafka shows what a transaction committed a moment after it has confirmed its end.
    eventually(lambda: look.committed(topic)[0] == 2)


def test_the_owners_duties_come_between_two_commits(
    connect: Connect, publish: Publish, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where each takes longer than they are apart, and there is always something to commit."""
    happened: list[str] = []
    commit, step = Fence.commit, StaticOwnership.step

    async def slow(fence: Fence, *told: Any) -> None:
        happened.append("commit")
        await fence._client._net.sleep(0.1)
        await commit(fence, *told)

    def noted(ownership: StaticOwnership, *told: Any) -> None:
        happened.append("duties")
        step(ownership, *told)

    monkeypatch.setattr(Fence, "commit", slow)
    monkeypatch.setattr(StaticOwnership, "step", noted)
    reader = Reader(connect(partitions=[0]), topic)

    def six_commits_after_another() -> bool:
        publish(topic, range(1), partition=0)
        reader.read().ack()
        return happened.count("commit") >= 6

    eventually(six_commits_after_another)
    begun = [at for at, what in enumerate(happened) if what == "commit"]
    for one, next_one in pairwise(begun):
        assert "duties" in happened[one:next_one]
