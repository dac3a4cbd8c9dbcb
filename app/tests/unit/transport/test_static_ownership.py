"""An owner whose seat Kafka gave up: whether it may sit down again."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import ProducerFencedError
from kafka.structs import TopicPartition

from kombu_kafka.consuming.inbox import Inbox
from kombu_kafka.errors import ConsumerFailedError
from kombu_kafka.options import Options
from kombu_kafka.ownership import static

PARTITION = TopicPartition("tasks", 0)


class Seat:
    """A claim that Kafka has forgotten, until it is taken."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    def keep(self) -> bool:
        return False

    def need_rejoin(self) -> bool:
        return True

    def take(self) -> bool:
        self._asked.append("seat")
        return True


class Commits:
    """A fence that is another's when it is asked for the `fenced_at`th time; None: it stays ours."""

    def __init__(self, asked: list[str], fenced_at: int | None) -> None:
        self._asked, self._fenced_at = asked, fenced_at

    def confirm(self, timeout: float) -> None:
        self._asked.append("fence")
        if self._asked.count("fence") == self._fenced_at:
            raise ProducerFencedError


@pytest.fixture
def asked() -> list[str]:
    """What was asked, in order."""
    return []


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> Any:
    """An owner that Kafka has not heard of for a while; it names nobody else."""
    monkeypatch.setattr(static, "owners", lambda *_: {})
    options = Options.of("kafka://kafka1:9092//tasks", {"partitions": [0]})
    inbox = Inbox(10)
    made: Any = static.StaticOwnership(options, inbox, lambda *_: True, lambda *_: True)
    made._claims[PARTITION] = Seat(asked)
    yield made
    inbox.release()


def test_nobody_came(owner: Any, asked: list[str]) -> None:
    owner._fences[PARTITION] = Commits(asked, None)
    owner._keep(PARTITION)
    assert asked == ["fence", "seat", "fence"]


def test_who_came_and_is_late_is_not_driven_out(owner: Any, asked: list[str]) -> None:
    """The one that was frozen ends, and leaves the seat to its successor."""
    owner._fences[PARTITION] = Commits(asked, 1)
    with pytest.raises(ConsumerFailedError, match="has owned tasks-0"):
        owner._keep(PARTITION)
    assert asked == ["fence"]


def test_who_comes_just_then_is_noticed(owner: Any, asked: list[str]) -> None:
    owner._fences[PARTITION] = Commits(asked, 2)
    with pytest.raises(ConsumerFailedError, match="has owned tasks-0"):
        owner._keep(PARTITION)
    assert asked == ["fence", "seat", "fence"]
