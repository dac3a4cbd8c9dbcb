"""Topics that are missing: how often they are looked for, and what is said of them."""

from __future__ import annotations

import logging
from collections.abc import Collection
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import InvalidTopicError

from kombu_kafka.clients import lookup
from kombu_kafka.clients.logs import told
from kombu_kafka.errors import ConfigurationError
from kombu_kafka.ownership import absent
from kombu_kafka.ownership.absent import AbsentTopics

CLIENT = SimpleNamespace(_manager=None)


class Brokers:
    """Topics there are, when each was asked for, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.there: dict[str, int] = {}
        self.asked: list[tuple[float, list[str]]] = []

    def counts(self, manager: Any, seconds: float, topics: Collection[str]) -> dict[str, int]:
        self.asked.append((self.now, sorted(topics)))
        return {topic: self.there[topic] for topic in topics if topic in self.there}


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Brokers:
    made = Brokers()
    clock = SimpleNamespace(monotonic=lambda: made.now)
    monkeypatch.setattr(absent, "time", clock)
    monkeypatch.setattr(lookup, "time", clock)
    monkeypatch.setattr(lookup, "partition_counts", made.counts)
    return made


def look(topics: AbsentTopics, brokers: Brokers, seconds: float, *names: str) -> dict[str, int]:
    """Look ten times a second for so long, as the consumer's thread does."""
    found: dict[str, int] = {}
    for _ in range(round(10 * seconds)):
        found = topics.find(CLIENT, names)
        brokers.now += 0.1
    return found


def test_a_missing_topic_is_told_once_and_looked_for_less_and_less_often(
    brokers: Brokers, caplog: pytest.LogCaptureFixture
) -> None:
    topics = AbsentTopics()
    assert look(topics, brokers, 60, "tasks") == {}
    assert len(brokers.asked) < 25
    times = [at for at, _ in brokers.asked]
    gaps = [round(after - before) for before, after in pairwise(times)]
    assert gaps == sorted(gaps)
    assert max(gaps) == 4
    assert topics.names == {"tasks"}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "The topic tasks does not exist" in record.message
    assert "kafka-topics.sh --create --topic tasks" in record.message
    look(topics, brokers, 600, "tasks")
    assert len(caplog.records) == 2  # every ten minutes


def test_a_topic_that_comes_is_found_and_said_so(
    brokers: Brokers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    topics = AbsentTopics()
    look(topics, brokers, 30, "tasks")
    assert "tasks" in told
    brokers.there["tasks"] = 4
    assert look(topics, brokers, 5, "tasks") == {"tasks": 4}
    assert not topics.names
    assert "tasks" not in told
    assert caplog.records[-1].message == "The topic tasks is there now."


def test_a_topic_that_this_process_makes_is_looked_for_at_once(brokers: Brokers) -> None:
    topics = AbsentTopics()
    look(topics, brokers, 31, "tasks")
    brokers.there["tasks"] = 1
    assert not topics.find(CLIENT, ["tasks"])
    lookup.made("tasks")
    assert topics.find(CLIENT, ["tasks"]) == {"tasks": 1}


def test_one_that_is_there_is_not_asked_for_again_and_again(brokers: Brokers) -> None:
    """As while it waits for partitions that others own."""
    topics = AbsentTopics()
    brokers.there["tasks"] = 2
    assert look(topics, brokers, 10, "tasks", "more") == {"tasks": 2}
    assert len([names for _, names in brokers.asked if "tasks" in names]) <= 12


def test_one_that_nobody_wants_any_more_is_forgotten(brokers: Brokers) -> None:
    topics = AbsentTopics()
    look(topics, brokers, 1, "tasks", "more")
    topics.keep(["more"])
    assert topics.names == {"more"}
    assert "tasks" not in told


def test_a_name_that_no_topic_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise InvalidTopicError("a b")

    monkeypatch.setattr(lookup, "partition_counts", refuse)
    with pytest.raises(ConfigurationError, match="'a b' can't be the name of a queue"):
        AbsentTopics().find(CLIENT, ["a b"])


@pytest.mark.parametrize(
    ("name", "message", "args", "kept"),
    [
        ("kafka.cluster", "Topic %s not found in cluster metadata", ("told-of",), False),
        ("kafka.cluster", "Topic %s not found in cluster metadata", ("another",), True),
        ("kafka.cluster", "Topic %s is not authorized for this client", ("told-of",), True),
        ("kafka.net.selector", "Task x ran for 0.2s. It is blocking the event loop", (), False),
        (
            "kafka.producer.sender",
            "%s: Got error produce response on x, retrying (3 left)",
            ("",),
            False,
        ),
        ("kafka.producer.sender", "%s: Got error produce response on x, giving up", ("",), True),
        ("kafka.net.selector", "Selector got READ event without reader", (), True),
    ],
)
def test_what_is_left_out_of_the_clients_log(
    caplog: pytest.LogCaptureFixture, name: str, message: str, args: tuple[str, ...], kept: bool
) -> None:
    told.add("told-of")
    try:
        logging.getLogger(name).error(message, *args)
    finally:
        told.discard("told-of")
    assert bool(caplog.records) is kept
