"""Options in the broker URL, and failing over from one URL to the next."""

from __future__ import annotations

import logging

import pytest
from kombu import Connection

import kombu_kafka
from kombu_kafka.errors import ConfigurationError
from kombu_kafka.options import Options

URL = "kafka://a:9092,b:9092//tasks"


def test_what_follows_the_question_mark_is_an_option_of_its_type() -> None:
    options = Options.of(f"{URL}?group_id=orders&commit_interval=0.5&partitions=3,1&max_buffered=9")
    assert options.group_id == "orders"
    assert options.commit_interval == 0.5
    assert options.partitions == (1, 3)
    assert options.max_buffered == 9


def test_an_unknown_one_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Options.of(f"{URL}?grup_id=orders")
    assert "'grup_id' is unknown" in caplog.text
    assert "did you mean 'group_id'" in caplog.text


@pytest.mark.parametrize(
    ("query", "given", "says"),
    [
        ("max_buffered=many", {}, "max_buffered=many of the broker URL is no int"),
        ("partitions=one", {}, "partitions=one"),
        ("group_id=a&group_id=b", {}, "twice"),
        ("group_id=a", {"group_id": "b"}, "set it in one place"),
        ("ordering=sorted", {}, "'sorted' is unknown"),
    ],
)
def test_what_can_not_be_is_refused(query: str, given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Options.of(f"{URL}?{query}", given)


def test_the_same_said_twice_is_no_contradiction() -> None:
    assert Options.of(f"{URL}?group_id=a", {"group_id": "a", "partitions": None}).group_id == "a"


def test_a_connection_switches_to_the_next_url_whole() -> None:
    kombu_kafka.register()
    connection = Connection("kafka://a:1,b:2//t;kafka://c:3,d:4//t;amqp://me@e:5//v")
    assert connection.hostname == "kafka://a:1,b:2//t"
    connection.maybe_switch_next()
    assert (connection.transport_cls, connection.hostname) == ("kafka", "kafka://c:3,d:4//t")
    assert connection.transport.options.hosts == ("c:3", "d:4")
    connection.maybe_switch_next()  # to another transport's, as before
    assert (connection.transport_cls, connection.hostname, connection.port) == ("amqp", "e", 5)
    connection.switch("kafka://f:6//t")
    assert connection.transport.options.hosts == ("f:6",)
