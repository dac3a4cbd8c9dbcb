"""Priorities and times to live: the rules."""

from __future__ import annotations

import pytest

from kombu_kafka.errors import ConfigurationError
from kombu_kafka.options import Options
from kombu_kafka.priority import step_of, topic_of_step
from kombu_kafka.queues.expiry import expires_at, queue_ttl


@pytest.mark.parametrize(
    ("priority", "step"), [(0, 0), (2, 0), (3, 3), (5, 3), (9, 9), (200, 9), (-1, 0), (None, 0)]
)
def test_a_priority_belongs_to_the_step_below_it(priority: object, step: int) -> None:
    assert step_of(priority, (0, 3, 6, 9)) == step


def test_without_steps_there_is_one_topic() -> None:
    assert step_of(9, ()) == 0
    assert topic_of_step("tasks", 0) == "tasks"
    assert topic_of_step("tasks", 6) == "tasks.priority-6"


@pytest.mark.parametrize("steps", [[3, 6], [0, 6, 3], [0, 10], [0, 0], "0,3", [0, True], 3])
def test_steps_that_can_not_be(steps: object) -> None:
    with pytest.raises(ConfigurationError, match="priority_steps"):
        Options.of("kafka://a//t", {"priority_steps": steps})


def test_steps_in_the_url() -> None:
    assert Options.of("kafka://a//t?priority_steps=0,5").priority_steps == (0, 5)


@pytest.mark.parametrize(
    ("expiration", "ttl", "expected"),
    [
        (None, None, None),
        ("500", None, 1500),
        (None, 300, 1300),
        ("500", 300, 1300),
        (100, 300, 1100),
    ],
)
def test_the_shorter_time_to_live_counts(
    expiration: object, ttl: int | None, expected: int | None
) -> None:
    assert expires_at(1000, expiration, ttl) == expected


def test_a_record_without_a_timestamp_lives() -> None:
    assert expires_at(-1, "5", None) is None


@pytest.mark.parametrize("expiration", ["soon", "-1", 1.5, [1]])
def test_an_expiration_that_is_no_number(expiration: object) -> None:
    with pytest.raises(ValueError, match="milliseconds"):
        expires_at(1000, expiration, None)


def test_the_queue_argument() -> None:
    assert queue_ttl({"x-message-ttl": 5000}) == 5000
    assert queue_ttl(None) is None
