"""What an interrupted command says, and losing the brokers midway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from kafka.structs import TopicPartition

from kombu_kafka.errors import BrokerUnavailableError
from kombu_kafka.options import Options
from scheduler.dlq.history import History
from scheduler.dlq.index import Index
from scheduler.dlq.interrupts import command_to_go_on
from scheduler.dlq.letters import LetterId
from scheduler.dlq.reader import Reader
from tests.unit.dlq.test_dlq_letters import record


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--all", "--why", "it's back"], """--after 0-9 --all --why 'it'"'"'s back'"""),
        (["--after", "0-3", "--all"], "--after 0-9 --all"),
        (["--after=0-3", "0-1", "0-12"], "--after 0-9 0-1 0-12"),
    ],
)
def test_the_command_to_go_on(given: list[str], said: str) -> None:
    words = ["dlq", "replay", *given]
    assert command_to_go_on(words, LetterId(0, 9)) == f"scheduler dlq replay {said}"


class _Broken(Reader):
    """Three letters, of which the brokers give two and are gone."""

    def __init__(self) -> None:
        self.whole = False

    def topic_id(self, topic: str) -> str:
        return topic

    def bounds(self, topic: str) -> dict[TopicPartition, tuple[int, int]]:
        return {TopicPartition(topic, 0): (0, 3)} if topic == "celery_tasks_dlq" else {}

    def _read(self, left: dict[TopicPartition, tuple[int, int]]) -> Iterator[Any]:
        for one, (start, end) in left.items():
            for offset in range(start, end):
                if offset == 2 and not self.whole:
                    raise BrokerUnavailableError("gone")
                yield record()._replace(topic=one.topic, partition=0, offset=offset)


def test_what_was_read_before_the_brokers_were_lost_is_read_again() -> None:
    reader = _Broken()
    index = Index(Options.of("kafka://127.0.0.1:1//tasks"), reader)
    with pytest.raises(BrokerUnavailableError):
        index.refresh()
    assert index.entries() == []
    reader.whole = True
    assert len(index.refresh().letters) == len(index.entries()) == 3
    assert index.refresh().letters == ()


def test_letters_are_told_once_whenever_the_brokers_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the letters and before the history; and a topic that a starting broker doesn't know."""
    reader = _Broken()
    reader.whole = True
    index = Index(Options.of("kafka://127.0.0.1:1//tasks"), reader)
    with monkeypatch.context() as lost:
        lost.setattr(History, "refresh", Mock(side_effect=BrokerUnavailableError("gone")))
        with pytest.raises(BrokerUnavailableError):
            index.refresh()
    assert len(index.refresh().letters) == 3
    with monkeypatch.context() as starting:
        starting.setattr(reader, "topic_id", lambda topic: None)
        assert index.refresh().letters == ()
        assert index.entries() == []
    assert index.refresh().letters == ()
    assert len(index.entries()) == 3
