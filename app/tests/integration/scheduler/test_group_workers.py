"""Worker processes that share partitions, or must not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from kombu_kafka.options import Options
from kombu_kafka.topics import lag
from scheduler.local_broker import LocalKafka
from scheduler.preflight import EX_CONFIG
from tests.ledger import Ledger

#: Session timeout in seconds: owners may be late with a sign of life on a busy machine, by some seconds.
SESSION = "8"


@pytest.fixture
def modules() -> str:
    return "tests.ledger"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def test_a_worker_that_is_killed_in_a_group_loses_nothing(system: Any, ledger: Ledger) -> None:
    """Killed under load and started again under its name: none is lost, the others go on.

    The last task of each partition ends after the kill, so that it hits a worker that works.
    """
    tasks = 400
    killed = ledger.path.with_name("killed")
    for number in range(tasks):
        sequence, partition = divmod(number, 4)
        until = str(killed) if number >= tasks - 4 else None
        system.send("ledger.entry", sequence, 0.002, until, partition=partition)
    first, second = (system.group_worker(name, 6) for name in ("one", "two"))
    for worker in (first, second):
        worker.start()
    for worker in (first, second):
        worker.wait_ready()
    # Fewer than a partition has: a worker may come to the end of one, and wait, before it begins another.
    system.wait("some of them", lambda: ledger.ended() >= tasks // 5)
    first.kill()
    ledger.note("kill")
    killed.touch()
    first.start()
    system.wait(f"{tasks} tasks", lambda: ledger.ended() >= tasks)
    system.wait_done()
    verdict = ledger.check(dict.fromkeys(range(4), tasks // 4))
    assert verdict.lost == []
    assert system.dead_letters() == []


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_was_frozen_ends_when_another_has_taken_over(
    system: Any, ledger: Ledger, pool: str
) -> None:
    """SIGSTOP for longer than the session: the other goes on; woken, the first begins nothing.

    Without an order Celery has all of the tasks at hand by then, and a pool of threads does. One in
    the middle ends after the freeze, so that there is work left for the other.
    """
    tasks = 300
    frozen = ledger.path.with_name("frozen")
    system.arguments = ("-P", pool)
    environ = {"CELERY_SESSION_TIMEOUT": SESSION, "CELERY_ORDERING": "none"}
    first = system.worker(0, name="one", **environ)
    other = system.worker(0, name="two", **environ)
    first.start()
    first.wait_ready()
    for sequence in range(tasks):
        until = str(frozen) if sequence == tasks // 2 else None
        system.send("ledger.entry", sequence, 0.02, until, partition=0)
    system.wait("a start", lambda: ledger.ended() >= 20)
    os.killpg(first.pid, signal.SIGSTOP)
    frozen.touch()
    its_children = {line[-1] for line in ledger.lines()}
    other.start()
    other.wait_ready()
    before = ledger.ended()
    system.wait("the other's work", lambda: ledger.ended() >= before + 20)
    system.workers.remove(first)
    ledger.note("woken")
    os.killpg(first.pid, signal.SIGCONT)
    assert first.wait(120) == EX_CONFIG
    said = first.log.read_text()
    assert "is owned by two@" in said
    assert "so one@" in said
    system.wait("the rest", lambda: ledger.ended() >= tasks)
    system.wait_done()
    lines = ledger.lines()
    woken = lines.index(next(line for line in lines if line[0] == "woken"))
    begun = [line for line in lines[woken:] if line[0] == "start" and line[-1] in its_children]
    # One may have been let through just before all froze: it had not reached its child or the ledger.
    assert len(begun) <= 1, "the one that was frozen began tasks"
    others = [int(line[2]) for line in lines if line[0] == "start" and line[-1] not in its_children]
    assert len(others) == len(set(others)), "the other ran its tasks each once"
    # On another host (no journal) the tasks since the last commit run again, and no others.
    assert set(others) == set(range(min(others), tasks))
    first.stop()


def test_killed_and_started_again_under_its_name_waits_for_nobody(
    system: Any, ledger: Ledger
) -> None:
    worker = system.worker(0, name="one", CELERY_SESSION_TIMEOUT="600")
    worker.start()
    worker.wait_ready()
    worker.kill()
    worker.start()
    worker.wait_ready()
    assert "in case it is dead" not in worker.log.read_text()


def test_workers_that_must_not_share_end_for_good(system: Any) -> None:
    """A second owner, and a worker without partitions: each says why, and is not restarted."""
    owner = system.worker(0, name="owner", CELERY_SESSION_TIMEOUT=SESSION)
    owner.start()
    owner.wait_ready()
    second = system.worker(0, name="second", CELERY_SESSION_TIMEOUT=SESSION)
    sharing = system.group_worker("sharing", float(SESSION))
    for worker in (second, sharing):
        system.workers.remove(worker)
        worker.start()
    for worker, says in ((second, "a partition has one worker"), (sharing, "or none.")):
        assert worker.wait(120) == EX_CONFIG
        assert f"{system.topic}-0" in worker.log.read_text()
        assert "owner@" in worker.log.read_text()
        assert says in worker.log.read_text()
        worker.stop()
    assert owner.running


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_plain_celery_app_works_with_celerys_defaults(
    kafka: LocalKafka, topic: str, tmp_path: Path, pool: str
) -> None:
    """Early acknowledgement, prefetching four for each child, the group celery-group."""
    ledger = Ledger(tmp_path / "ledger")
    environ = {
        **os.environ,
        "PLAIN_BROKER_URL": kafka.url(topic),
        "LEDGER_FILE": str(ledger.path),
    }
    command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "tests.plain_app"]
    options = ["worker", "-P", pool, "-c", "2", "-n", f"plain-{pool}@%h", "-l", "INFO"]
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        worker = subprocess.Popen([*command, *options], env=environ, stdout=out, stderr=out)
    try:
        with Celery("sender", broker=kafka.url(topic)) as sender:
            for number in range(60):
                sender.send_task("plain.note", (number,))
        deadline = time.monotonic() + 120
        while len(ledger.lines()) < 60:
            assert time.monotonic() < deadline, log.read_text()
            assert worker.poll() is None, log.read_text()
            time.sleep(0.1)
        worker.terminate()
        assert worker.wait(120) == 0, log.read_text()
    finally:
        worker.kill()
    assert sorted(int(line[1]) for line in ledger.lines()) == list(range(60))
    lags = lag(Options.of(kafka.url(topic)), topic).values()
    assert all(end == (committed or 0) for committed, end in lags)
