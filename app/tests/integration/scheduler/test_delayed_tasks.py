"""Tasks with a countdown through real workers: in Kafka until due, then run once, or revoked."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from celery import chain, group

from kombu_kafka.delay import backlog as delay_backlog
from kombu_kafka.delay import messages
from scheduler.broker import broker_options
from scheduler.dlq.reader import Reader

from .conftest import System

#: Far enough ahead that it is still to come when the workers are ready.
SOON = 2.0
#: What is due within it goes straight to its topic.
PRECISION = timedelta(milliseconds=messages.BASE_MS)


@pytest.fixture
def delayed(system: System) -> System:
    """The test's system, with a delay topic of its own."""
    name = f"{system.topic}-delay"
    system.environ["CELERY_DELAY_TOPIC"] = name
    system.app.conf.broker_transport_options["delay_topic"] = name
    return system


def events(system: System) -> list[str]:
    """What ran, in order."""
    from tests.ledger import Ledger

    return [line[0] for line in Ledger(system.directory / "ledger").lines()]


def records(system: System, topic: str) -> list[tuple[dict[str, bytes], datetime]]:
    """The headers of every record of a topic, and when each was published."""
    with Reader(broker_options(system.app)) as reader:
        return [
            (dict(record.headers), datetime.fromtimestamp(record.timestamp / 1000, UTC))
            for record in reader.read(reader.bounds(topic))
        ]


def waiting(system: System) -> int:
    return sum(level.waiting for level in delay_backlog.backlog(broker_options(system.app)))


def test_a_delayed_task_holds_nobody_up_and_runs_when_due_in_its_partition(
    delayed: System,
) -> None:
    delayed.send("tests.note", countdown=3600, partition=0)
    for seconds in (SOON, SOON + 0.5):
        delayed.send("tests.fails", "due", countdown=seconds, partition_key="order-1")
    delayed.send("tests.note", partition=0)
    worker = delayed.worker(0, 1, 2, 3)
    worker.start()
    worker.wait_ready()
    # Strict order, and the first in partition 0 is due in an hour: it is not there.
    delayed.wait("the task behind it", lambda: "note" in events(delayed))
    delayed.wait("the delayed ones", lambda: events(delayed).count("fails") == 2)
    delayed.wait_done()
    assert events(delayed).count("note") == 1
    assert len({letter.key for letter in delayed.dead_letters()}) == 1
    assert waiting(delayed) >= 1


def test_a_retry_waits_in_kafka_and_canvas_counts_down(delayed: System) -> None:
    note, again = delayed.app.tasks["tests.note"], delayed.app.tasks["tests.again"]
    later = 3
    again.apply_async([later], partition=1)
    chain(note.si().set(partition=2), note.si().set(countdown=later, partition=2)).apply_async()
    group(note.si().set(partition=3) for _ in range(3)).apply_async(countdown=later)
    worker = delayed.worker(0, 1, 2, 3)
    worker.start()
    worker.wait_ready()
    delayed.wait("two attempts", lambda: events(delayed).count("again") == 2)
    delayed.wait("five notes", lambda: events(delayed).count("note") == 5)
    # The attempt after the first, and each countdown, came through the delay topic, but what a busy
    # worker published when it was due already.
    name = str(delayed.app.conf.broker_transport_options["delay_topic"])
    found = {(header["task"], header["id"]) for header, _ in records(delayed, name)}
    for header, published in records(delayed, delayed.topic):
        if (
            "eta" in header
            and published > datetime.fromisoformat(header["eta"].decode()) - PRECISION
        ):
            found.add((header["task"], header["id"]))
    assert Counter(task for task, _ in found) == {b"tests.again": 1, b"tests.note": 1 + 3}


def test_what_is_revoked_stays_so_when_all_workers_were_restarted(delayed: System) -> None:
    worker = delayed.worker(0, 1, 2, 3)
    worker.start()
    worker.wait_ready()
    doomed = delayed.send("tests.note", countdown=15, partition=0)
    delayed.send("tests.note", countdown=15, partition=0)
    (reply,) = delayed.app.control.revoke(doomed, reply=True, timeout=60, limit=1)
    assert "ok" in next(iter(reply.values()))
    worker.kill()
    worker.start()
    worker.wait_ready()
    delayed.wait("the other one", lambda: events(delayed).count("note") == 1)
    delayed.wait_done()
    assert events(delayed).count("note") == 1
    log = worker.log.read_text()
    assert f"Discarding revoked task: tests.note[{doomed}]" in log
    assert delayed.dead_letters() == []


@pytest.mark.slow
def test_a_dispatcher_killed_with_its_worker_is_followed_by_another_workers(
    delayed: System,
) -> None:
    first, second = delayed.worker(0, 1), delayed.worker(2, 3)
    for worker in (first, second):
        worker.start()
        worker.wait_ready()
    for number in range(40):
        delayed.send("tests.note", countdown=1 + number * 0.2, partition=2 + number % 2)
    delayed.wait("some of them", lambda: events(delayed).count("note") >= 3)
    first.kill()  # whether it was the one at work or not, nothing is lost or doubled
    delayed.workers.remove(first)
    delayed.wait("all of them", lambda: events(delayed).count("note") >= 40)
    assert events(delayed).count("note") == 40
