"""A real worker on a real broker: what becomes of a record, however its task ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from tests.ledger import Ledger

Value = Callable[[Any, str], str]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def _events(ledger: Ledger) -> list[str]:
    return [line[0] for line in ledger.lines()]


def test_failures_of_every_kind_end_as_dead_letters_whole(
    system: Any, ledger: Ledger, kafka_value: Value
) -> None:
    sent = {
        system.send("tests.fails", "no such order", partition=0, partition_key="order-42"): (
            "exception",
            "ValueError",
        ),
        system.send("tests.dies", partition=0): ("worker-lost", "WorkerLostError"),
        system.send("tests.hangs", partition=0): ("time-limit", "TimeLimitExceeded"),
        system.send("tests.hard_error", partition=0): ("exception", "KafkaTimeoutError"),
    }
    system.send("tests.note", partition=0)
    system.worker(0).start()
    system.wait_done()
    # In order, a death three times over, nothing skipped, and what came after still ran. On a busy
    # machine the time of the one that hangs may be up before its first line.
    ran = ["fails", *["dies"] * 3, "hangs", "hard_error", "note"]
    assert _events(ledger) in (ran, [event for event in ran if event != "hangs"])
    letters = system.dead_letters()
    assert [kafka_value(letter, "id") for letter in letters] == list(sent)
    for letter, (reason, exception) in zip(letters, sent.values(), strict=True):
        assert kafka_value(letter, "dlq-reason") == reason
        assert kafka_value(letter, "dlq-exception") == exception
        assert kafka_value(letter, "dlq-topic") == system.topic
        assert kafka_value(letter, "dlq-partition") == "0"
    assert letters[0].key == b"order-42"
    assert letters[0].value.startswith(b'[["no such order"], {},')
    assert kafka_value(letters[0], "dlq-offset") == "0"
    assert kafka_value(letters[0], "dlq-message") == "no such order"
    assert "raise ValueError(text)" in kafka_value(letters[0], "dlq-traceback")


def test_retries_stay_in_their_partition_and_end_as_one_dead_letter(
    system: Any, ledger: Ledger, kafka_value: Value
) -> None:
    system.send("tests.retries", partition=2)
    system.worker(2).start()
    system.wait("three runs", lambda: len(ledger.lines()) == 3)
    system.wait_done()
    assert {line[1] for line in ledger.lines()} == {"2"}
    assert [line[3] for line in ledger.lines()] == ["0", "1", "2"]
    (letter,) = system.dead_letters()
    assert kafka_value(letter, "dlq-exception") == "TimeoutError"
    assert kafka_value(letter, "retries") == "2"


def test_what_is_no_task_becomes_a_dead_letter_byte_for_byte(
    system: Any, ledger: Ledger, kafka_value: Value
) -> None:
    task = [("task", b"tests.note"), ("id", b"id-1")]
    as_json = [("content-type", b"application/json"), ("content-encoding", b"utf-8")]
    pickle = [("content-type", b"application/x-python-serialize"), ("content-encoding", b"binary")]
    records = [
        (b"\xff\xfe not text", task + as_json),
        (b"{not json", task + as_json),
        (b"\x80\x04N.", task + pickle),
        (b"[[], {}, {}]", [("task", b"tests.unknown"), ("id", b"id-2"), *as_json]),
        (b"hello", []),
    ]
    producer = KafkaProducer(bootstrap_servers=system.kafka.bootstrap)
    for value, headers in records:
        producer.send(system.topic, value, key=b"k", headers=headers, partition=1).get(30)
    producer.close()
    system.send("tests.note", partition=1)
    system.worker(1).start()
    system.wait_done()
    assert _events(ledger) == ["note"]
    letters = system.dead_letters()
    assert [(letter.value, letter.key) for letter in letters] == [
        (value, b"k") for value, _ in records
    ]
    for letter, (_, headers) in zip(letters, records, strict=True):
        assert letter.headers[: len(headers)] == headers
    assert [kafka_value(letter, "dlq-reason") for letter in letters] == [
        "undecodable", "undecodable", "undecodable", "unknown-task", "undecodable",
    ]  # fmt: skip
    assert [kafka_value(letter, "dlq-header-count") for letter in letters] == [
        str(len(headers)) for _, headers in records
    ]
    assert kafka_value(letters[3], "dlq-task") == "tests.unknown"
    assert kafka_value(letters[3], "dlq-task-id") == "id-2"


def test_a_worker_told_to_stop_finishes_its_task(system: Any, ledger: Ledger) -> None:
    from celery import signature

    system.app.finalize()
    system.environ["CELERY_APP_MODULE"] = "tests.tasks,tests.ledger"
    signature("ledger.entry", (0, 2.0), app=system.app).apply_async(partition=3)
    worker = system.worker(3)
    worker.start()
    system.wait("a start", lambda: "start" in _events(ledger))
    assert worker.stop() == 0
    assert _events(ledger) == ["start", "end"]
    assert system.lag() == 0


def test_a_task_that_fails_while_its_worker_stops_is_one_dead_letter(
    system: Any, ledger: Ledger
) -> None:
    system.send("tests.fails", "too late", 2.0, partition=3)
    worker = system.worker(3)
    worker.start()
    system.wait("a start", lambda: _events(ledger) == ["fails"])
    assert worker.stop() == 0
    assert system.lag() == 0
    assert len(system.dead_letters()) == 1


@pytest.mark.parametrize(
    ("environ", "code", "says"),
    [
        ({"CELERY_ORDERING": "strict"}, 78, "must be one of partition, key, none"),
        ({"CUSTOM_PARTITION": "0;1"}, 78, "is no list of partitions"),
        ({"CUSTOM_PARTITION": "9"}, 78, "names partition 9, but the topic"),
        ({"CELERY_APP_MODULE": "no_such:app"}, 78, "can't be imported"),
        ({"CELERY_APP_MODULE": "no_such"}, 78, "The module no_such of CELERY_APP_MODULE"),
        (
            {"CELERY_BROKER_URL": "kafka://127.0.0.1:1//tasks", "CELERY_CONNECT_TIMEOUT": "1"},
            69,
            "answered within 1 seconds",
        ),
    ],
)
def test_a_worker_that_can_not_start_says_why_in_one_sentence(
    system: Any, environ: dict[str, str], code: int, says: str
) -> None:
    worker = system.worker(0, **environ)
    worker.start()
    assert worker.wait(120) == code
    log = worker.log.read_text()
    (sentence,) = [line for line in log.splitlines() if line.startswith("scheduler: ")]
    assert says in sentence
    assert "Traceback" not in log
