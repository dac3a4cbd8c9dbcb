"""Whatever ends a task for good ends as its dead letter, whole; and can be put right."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from kombu_kafka.options import Options
from scheduler.cli import main
from scheduler.dlq.reader import Reader
from tests.ledger import Ledger

Value = Callable[[Any, str], str]

FAILING = 1000

JSON = [("content-type", b"application/json"), ("content-encoding", b"utf-8")]

#: What fails in which way: headers, value, and the reason its letter says.
KINDS: dict[str, tuple[list[tuple[str, bytes]], bytes, str]] = {
    "raises": ([("task", b"tests.fails"), *JSON], '[["käse ☃ 雪"], {}, {}]'.encode(), "exception"),
    "hard": ([("task", b"tests.hard_error"), *JSON], b"[[], {}, {}]", "exception"),
    "declared": ([("task", b"tests.declared_hard"), *JSON], b"[[], {}, {}]", "exception"),
    "unpicklable": ([("task", b"tests.unpicklable"), *JSON], b"[[], {}, {}]", "exception"),
    "rejects": ([("task", b"tests.rejects"), *JSON], b"[[], {}, {}]", "rejected"),
    "arguments": ([("task", b"tests.fails"), *JSON], b'[[], {"no": 1}, {}]', "arguments"),
    "unknown": ([("task", b"tests.no_such"), *JSON], b"[[], {}, {}]", "unknown-task"),
    "not json": ([("task", b"tests.note"), *JSON], b"{not json", "undecodable"),
    "binary": ([("task", b"tests.note"), *JSON], bytes(range(256)), "undecodable"),
    "pickle": (
        [("task", b"tests.note"), ("content-type", b"application/x-python-serialize"),
         ("content-encoding", b"binary")], b"\x80\x04N.", "undecodable",
    ),
    "odd headers": ([("task", b"tests.note"), ("odd", b"\xff\xfe"), ("odd", b"")], b"[]", "undecodable"),
    "no task": ([], b'{"hello": "world"}', "no-task"),
}  # fmt: skip

#: What ends by force, which takes its time: one of each among all of them.
VIOLENT = {501: (b"tests.hangs", "time-limit"), 502: (b"tests.dies", "worker-lost")}


def _records(system: Any, topic: str) -> list[Any]:
    with Reader(Options.of(system.kafka.url(topic))) as reader:
        return list(reader.read(reader.bounds(topic)))


def _dlq(system: Any, *args: str, code: int = 0) -> str:
    environ = {
        "CELERY_BROKER_URL": system.kafka.url(system.topic),
        "CELERY_DEAD_LETTER_TOPIC": system.dead_letter_topic,
    }
    result = CliRunner().invoke(main, ["dlq", *args], env=environ)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.mark.slow
def test_a_thousand_failing_tasks_are_a_thousand_letters_byte_for_byte(
    system: Any, kafka_value: Value
) -> None:
    chance = random.Random(11)
    names = [*KINDS]
    reasons = {}
    # The letter of a record of 1 MB is larger: the transport's topics take twice that.
    _configure(system, system.dead_letter_topic, {"max.message.bytes": str(2 << 20)})
    producer = KafkaProducer(bootstrap_servers=system.kafka.bootstrap, linger_ms=20)
    for number in range(FAILING):
        name = names[number % len(names)]
        headers, value, reason = KINDS[name]
        if number == 500:
            name, headers, reason = "large", [("task", b"tests.no_such"), *JSON], "unknown-task"
            value = json.dumps([["x" * 1_048_000], {}, {}]).encode()
        elif number in VIOLENT:
            task, reason = VIOLENT[number]
            headers, value = [("task", task), *JSON], b"[[], {}, {}]"
        headers = [
            *headers,
            ("id", f"id-{number}".encode()),
            ("mark", chance.randbytes(8).hex().encode()),
        ]
        key = chance.randbytes(6) if number % 3 else None
        producer.send(system.topic, value, key=key, headers=headers, partition=number % 4)
        reasons[f"id-{number}"] = reason
    producer.flush()
    producer.close()
    system.worker(0, 1, 2, 3, CELERY_ORDERING="none").start()
    system.wait("the letters", lambda: _ends(system, system.dead_letter_topic) >= FAILING, 300)
    system.wait_done()
    sent = {(one.partition, one.offset): one for one in _records(system, system.topic)}
    letters = _records(system, system.dead_letter_topic)
    assert len(letters) == len(sent) == FAILING
    for letter in letters:
        place = int(kafka_value(letter, "dlq-partition")), int(kafka_value(letter, "dlq-offset"))
        record = sent.pop(place)
        assert (letter.key, letter.value) == (record.key, record.value)
        assert letter.headers[: len(record.headers)] == record.headers
        assert kafka_value(letter, "dlq-reason") == reasons[kafka_value(letter, "dlq-task-id")]
        assert kafka_value(letter, "dlq-owner")
    assert not sent
    counts = Counter(kafka_value(letter, "dlq-reason") for letter in letters)
    assert len(counts) == 8
    assert counts["time-limit"] == counts["worker-lost"] == 1
    by_task = {kafka_value(letter, "dlq-task-id"): letter for letter in letters}
    hard, unpicklable = by_task["id-2"], by_task["id-3"]
    assert kafka_value(hard, "dlq-kind") == "hard"
    assert kafka_value(hard, "dlq-attempts") == "1", "declared hard: autoretry left it alone"
    assert kafka_value(unpicklable, "dlq-exception") == "UnpicklableError"


def test_letters_that_can_not_be_written_are_not_lost(
    system: Any, tmp_path: Path, kafka_value: Value
) -> None:
    # A compacted topic takes no record without a key: to the writer, a topic that is not there.
    _configure(system, system.dead_letter_topic, {"cleanup.policy": "compact"})
    sent = [system.send("tests.fails", f"order {number}", partition=0) for number in range(20)]
    worker = system.worker(0)
    worker.start()
    system.wait("an error that says so", lambda: "Can't write" in worker.log.read_text())
    assert system.lag() == 20
    assert system.dead_letters() == []
    assert _ran(tmp_path) == 1, "its partition waits"
    _configure(system, system.dead_letter_topic, {"cleanup.policy": "delete"})
    system.wait_done()
    assert [kafka_value(letter, "id") for letter in system.dead_letters()] == sent


def test_what_is_meant_to_vanish_is_no_letter(system: Any) -> None:
    system.send("tests.ignores", partition=0)
    system.send("tests.note", partition=0, expires=time.time() - 60)
    system.send("tests.note", partition=0)
    system.worker(0).start()
    system.wait_done()
    assert system.dead_letters() == []


def test_a_replayed_letter_counts_through_retries_and_ends_well(
    system: Any, tmp_path: Path, kafka_value: Value
) -> None:
    """Fails, is replayed, fails again through a retry, is replayed by the watch, succeeds."""
    cause = tmp_path / "mended"
    system.send("tests.fails_until", str(cause), partition=1, partition_key="order-42")
    system.worker(1).start()
    system.wait("a letter", lambda: _ends(system, system.dead_letter_topic) == 1)
    system.wait_done()
    first = json.loads(_dlq(system, "list", "--json"))
    assert (first["attempts"], first["replays"], first["kind"]) == (2, 0, "passing")
    _dlq(system, "replay", first["id"], "--reset-retries")
    system.wait("its second letter", lambda: _ends(system, system.dead_letter_topic) == 2)
    second = json.loads(_dlq(system, "list", "--json"))
    assert (second["attempts"], second["replays"]) == (2, 1)
    assert second["first_failed_at"] == first["failed_at"]
    assert second["failed_at"] > first["failed_at"]
    assert second["key"] == "order-42"
    cause.touch()
    _watch_once(system)
    system.wait("the last run", lambda: _ran(tmp_path) == 5)
    system.wait_done()
    assert _dlq(system, "list", code=1) == ""
    acts = [json.loads(line) for line in _dlq(system, "history", "--json").splitlines()]
    assert [(act["letter"], act["by"]) for act in acts][-1] == (second["id"], "scheduler dlq watch")
    assert len(system.dead_letters()) == 2


def _ran(tmp_path: Path) -> int:
    return len(Ledger(tmp_path / "ledger").lines())


def _watch_once(system: Any) -> None:
    import threading

    from scheduler.dlq.filters import Filter
    from scheduler.dlq.replay import Order
    from scheduler.dlq.watch import Backoff, watch

    options = Options.of(
        system.kafka.url(system.topic), {"dead_letter_topic": system.dead_letter_topic}
    )
    stop = threading.Event()
    done: list[Any] = []

    def told(outcome: Any) -> None:
        done.extend(outcome.done)
        stop.set()

    order = Order(by="scheduler dlq watch")
    watch(options, Filter(), Backoff(0.0), order, every=0.1, stop=stop, told=told)
    assert len(done) == 1


def _ends(system: Any, topic: str) -> int:
    with Reader(Options.of(system.kafka.url(topic))) as reader:
        return sum(end for _, end in reader.bounds(topic).values())


def _configure(system: Any, topic: str, configs: dict[str, str]) -> None:
    admin = system.kafka.admin()
    try:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)])
    finally:
        admin.close()
