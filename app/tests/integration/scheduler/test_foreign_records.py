"""What anybody may write into the topic: kcat's tasks run, and no record stops a worker or vanishes."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.ledger import Ledger
from tests.malformed import KINDS, Malformed, malformed

RECORDS = 10_000
SEED = 4711
GOOD = 100
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

DOCS = Path(__file__).parents[4] / "docs" / "record-format.md"


def _produce(system: Any, records: list[Malformed]) -> dict[tuple[int, int], Malformed]:
    """Write records with another client than ours, in every compression; return where each lies."""
    lies: dict[tuple[int, int], Malformed] = {}
    producers = [
        Producer({"bootstrap.servers": system.kafka.bootstrap[0], "compression.type": codec,
                  "linger.ms": 20, "queue.buffering.max.messages": 200_000})
        for codec in CODECS
    ]  # fmt: skip
    for number, record in enumerate(records):

        def written(error: Any, message: Any, record: Malformed = record) -> None:
            assert error is None, error
            lies[message.partition(), message.offset()] = record

        producers[number // 100 % len(CODECS)].produce(
            system.topic,
            value=record.value,
            key=record.key,
            headers=record.headers,
            partition=number % 4,
            on_delivery=written,
        )
    for producer in producers:
        assert producer.flush(120) == 0
    return lies


@pytest.mark.slow
def test_ten_thousand_malformed_records(system: Any, tmp_path: Path) -> None:
    """Each becomes a dead letter, byte for byte; the tasks between them run; the worker lives on."""
    records = malformed(RECORDS, SEED)
    assert {record.kind for record in records} == {kind.__name__.strip("_") for kind in KINDS}
    ledger = Ledger(tmp_path / "ledger")
    lies = _produce(system, records[: RECORDS // 2])
    for number in range(GOOD):
        system.send("tests.note", partition=number % 4)
    lies |= _produce(system, records[RECORDS // 2 :])
    assert len(lies) == RECORDS
    worker = system.worker(0, 1, 2, 3, CELERY_ORDERING="none")
    worker.start()
    worker.wait_ready()
    pid = worker.pid
    system.wait_done(300)
    assert (worker.running, worker.pid) == (True, pid)
    assert len(ledger.lines()) == GOOD, "a task that was sent well did not run, or one sent ill did"
    found: Counter[tuple[int, int]] = Counter()
    for letter in system.dead_letters():
        place, record = _original(letter, lies)
        found[place] += 1
        assert letter.value == (record.value or b""), (place, record.kind)
        assert letter.key == record.key, (place, record.kind)
        headers = [(name, value or b"") for name, value in record.headers]
        assert letter.headers[: len(headers)] == headers, (place, record.kind)
    missing = [lies[place] for place in lies.keys() - found.keys()]
    assert not missing, Counter(record.kind for record in missing)
    assert set(found.values()) == {1}, "one letter for each"


def _original(letter: Any, lies: dict[tuple[int, int], Malformed]) -> tuple[Any, Malformed]:
    about = dict(letter.headers)
    place = int(about["dlq-partition"]), int(about["dlq-offset"])
    record = lies[place]
    nulls = [str(n) for n, (_, value) in enumerate(record.headers) if value is None]
    assert about.get("dlq-null-headers", b"").decode() == ",".join(nulls)
    assert (about.get("dlq-null-value") == b"true") == (record.value is None)
    assert about["dlq-reason"], record
    return place, record


@pytest.fixture
def documented_command() -> str:
    """The command that the documentation of the record shows."""
    block = re.search(r"^    (echo .*\n(?:     .*\n)*)", DOCS.read_text(), re.MULTILINE)
    assert block, "docs/record-format.md shows how kcat queues a task"
    return block[1]


def test_kcat_queues_a_task_as_documented(
    system: Any, documented_command: str, tmp_path: Path
) -> None:
    """The line of the documentation, with this test's broker, topic and task in it."""
    command = documented_command
    for shown, ours in [
        ("kafka1:9092", system.kafka.bootstrap[0]),
        ("-t tasks", f"-t {system.topic}"),
        ("orders.advance", "tests.note"),
        ('[["42", "place"], {}, {}]', "[[], {}, {}]"),
    ]:
        assert shown in command, f"{shown} is not in the documented command: {command}"
        command = command.replace(shown, ours)
    subprocess.run(["bash", "-ec", command], check=True, timeout=120, capture_output=True)
    system.worker(0, 1, 2, 3).start()
    system.wait_done()
    ledger = Ledger(tmp_path / "ledger")
    assert len(ledger.lines()) == 1
    # Where our own producer sends this key: murmur2 of it, over four partitions.
    system.send("tests.note", partition_key="order-42")
    system.wait_done()
    assert len({line[1] for line in ledger.lines()}) == 1
    assert system.dead_letters() == []
