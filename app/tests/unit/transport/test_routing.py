"""Rules of routing: publishers and readers work them out alone, and must agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kombu_kafka.errors import UnsupportedError
from kombu_kafka.exchanges import routing

WORDS = st.lists(st.sampled_from(["worker", "task", "a", "b", ""]), min_size=1, max_size=4)
PATTERNS = st.lists(st.sampled_from(["worker", "task", "a", "*", "#"]), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("#", "", True), ("#", "a.b.c", True), ("worker.#", "worker", True),
        ("worker.#", "worker.online", True), ("worker.#", "workers.online", False),
        ("*.failed", "task.failed", True), ("*.failed", "failed", False),
        ("*", "a.b", False), ("#.b", "b", True), ("#.b", "a.a.b", True), ("#.b", "b.a", False),
        ("a.*.c", "a.b.c", True), ("a.*.c", "a.c", False), ("a.#.c", "a.c", True),
        ("a.b", "axb", False),
    ],
)  # fmt: skip
def test_topic_patterns(pattern: str, key: str, fits: bool) -> None:
    assert routing.matches("topic", pattern, key) is fits


def test_direct_and_fanout() -> None:
    assert routing.matches("direct", "a", "a")
    assert not routing.matches("direct", "a", "a.b")
    assert routing.matches("fanout", "a", "b")
    assert routing.matches("fanout", "", None)
    assert not routing.matches("topic", "#", None)


@given(PATTERNS, WORDS, st.integers(1, 20))
def test_a_message_that_matches_lies_where_the_reader_looks(
    pattern: list[str], words: list[str], partitions: int
) -> None:
    for kind in sorted(routing.EXCHANGE_TYPES):
        binding, key = ".".join(pattern), ".".join(words)
        if routing.matches(kind, binding, key):
            lies = routing.partition_of(kind, key, partitions)
            assert lies in routing.partitions_read(kind, binding, partitions)


def test_events_of_workers_and_of_tasks_lie_apart() -> None:
    workers = routing.partitions_read("topic", "worker.#", 8)
    tasks = routing.partitions_read("topic", "task.#", 8)
    assert len(workers) == len(tasks) == 1
    assert workers != tasks
    assert routing.partitions_read("topic", "#", 8) == tuple(range(8))


@pytest.mark.parametrize(
    ("exchange", "topic"),
    [
        ("", "reply.celery"), ("celery.pidbox", "celery.pidbox"), ("celeryev", "celeryev"),
        ("reply.celery.pidbox", "reply.celery.pidbox"), ("news", "news.exchange"),
        ("a.b.pidbox", "a.b.pidbox.exchange"), ("shop.pidbox", "shop.pidbox"),
    ],
)  # fmt: skip
def test_topics_of_exchanges(exchange: str, topic: str) -> None:
    assert routing.exchange_topic(exchange) == topic


def test_names_that_kafka_does_not_take_get_one_of_their_own() -> None:
    assert routing.topic_name("tasks") == "tasks"
    names = {routing.topic_name(name) for name in ("a@b", "a b", "a_b", "a/b", ".", "..")}
    assert len(names) == 6


@pytest.mark.parametrize(
    ("queue", "reply"),
    [
        ("9f0c6f9e-8f4a-4b0e-8d1b-3a3f0a5c2d11", True),
        ("amq.gen-9f0c6f9e-8f4a-4b0e-8d1b-3a3f0a5c2d11", True),
        ("bcast.9f0c6f9e-8f4a-4b0e-8d1b-3a3f0a5c2d11", False),
        ("9f0c6f9e-8f4a-4b0e-8d1b-3a3f0a5c2d11.reply.celery.pidbox", False),
        ("9F0C6F9E-8F4A-4B0E-8D1B-3A3F0A5C2D11", False),
        ("tasks", False),
        ("", False),
    ],
)
def test_reply_queues_are_known_by_name(queue: str, reply: bool) -> None:
    assert routing.is_reply_queue(queue) is reply


def test_what_goes_with_its_consumer() -> None:
    assert routing.is_transient(exclusive=True, auto_delete=False)
    assert routing.is_transient(exclusive=False, auto_delete=True)
    assert not routing.is_transient(exclusive=False, auto_delete=False)


def test_exchanges_of_another_type_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="'headers'"):
        routing.require_type("news", "headers")


def test_headers_of_a_record() -> None:
    headers = [("amqp-routing_key", b"a.b"), ("none", None)]
    assert routing.header(headers, "amqp-routing_key") == "a.b"
    assert routing.header(headers, "none") is None
    assert routing.header([], "amqp-routing_key") is None
