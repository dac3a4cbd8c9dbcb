"""Tasks that take their whole worker down, again and again, on workers that are started again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.local_worker import LocalWorker
from tests.chaos.run import children
from tests.ledger import Ledger
from tests.memory_group import MemoryGroup, memory_group

Value = Callable[[Any, str], str]

LIMIT = 3


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def _events(ledger: Ledger, *names: str) -> list[str]:
    return [line[0] for line in ledger.lines() if line[0] in names]


def _run_until_done(system: Any, worker: LocalWorker) -> int:
    """Start the worker again whenever it died, as systemd does; return how often it died."""
    deaths = 0
    worker.start()

    def done() -> bool:
        nonlocal deaths
        if not worker.running:
            deaths += 1
            worker.stop()  # and what is left of its children
            worker.start()
        return bool(system.lag() == 0)

    system.wait("lag 0 in spite of deaths", done, 300)
    return deaths


@pytest.mark.parametrize(
    ("pool", "how", "given"),
    [("prefork", "parent", True), ("solo", "segfault", False), ("gevent", "exit", True)],
)
@pytest.mark.slow
def test_a_task_that_kills_its_worker_is_given_up_and_those_behind_it_run(
    system: Any, ledger: Ledger, kafka_value: Value, pool: str, how: str, given: bool
) -> None:
    """Also where the worker was not given a state directory: it makes one."""
    system.send("tests.note", partition=0)
    killer = system.send("tests.kills", how, partition=0)
    system.send("tests.note", partition=0)
    system.arguments = ("-P", pool)
    state = {} if given else {"STATE_DIRECTORY": "", "XDG_STATE_HOME": str(system.directory)}
    worker = system.worker(0, **state)
    assert _run_until_done(system, worker) == LIMIT
    assert _events(ledger, "note", "kills") == ["note", *["kills"] * LIMIT, "note"]
    (letter,) = system.dead_letters()
    assert kafka_value(letter, "id") == killer
    assert kafka_value(letter, "dlq-reason") == "delivery-limit"
    assert kafka_value(letter, "dlq-exception") == "WorkerLostError"
    assert kafka_value(letter, "dlq-message") == "The worker died 3 times while this task ran."
    assert given != (system.directory / "kombu-kafka").exists()


@pytest.fixture
def limited() -> Iterator[MemoryGroup]:
    """Room for a worker, not for a task that eats."""
    with memory_group(500 * 1024 * 1024) as group:
        yield group


def test_a_task_that_runs_out_of_memory_is_given_up_and_those_behind_it_run(
    limited: MemoryGroup, system: Any, ledger: Ledger, kafka_value: Value
) -> None:
    """Killed by the kernel, as within a unit's MemoryMax; the worker lives."""
    worker = system.worker(0)
    worker.start()
    worker.wait_ready()
    limited.add(worker.pid, *children(worker.pid))
    eater = system.send("tests.eats", 1000, partition=0)
    system.send("tests.note", partition=0)
    system.wait_done(120)
    assert _events(ledger, "eats", "note") == [*["eats"] * LIMIT, "note"]
    (letter,) = system.dead_letters()
    assert kafka_value(letter, "id") == eater
    assert kafka_value(letter, "dlq-reason") == "worker-lost"
    assert not limited.real or limited.kills() == LIMIT


@pytest.mark.slow
def test_neighbours_of_a_killer_are_acquitted(
    system: Any, ledger: Ledger, kafka_value: Value
) -> None:
    """Four threads, one process: whoever ran at a death is under suspicion, one is guilty."""
    for _ in range(3):
        system.send("tests.lasts", 0.5, partition=0)
    killer = system.send("tests.kills", "exit", 0.2, partition=0)
    for _ in range(12):
        system.send("tests.lasts", 0.4, partition=0)
    system.arguments = ("-P", "threads", "-c", "4")
    worker = system.worker(0, CELERY_ORDERING="none")
    assert _run_until_done(system, worker) == LIMIT
    (letter,) = system.dead_letters()
    assert kafka_value(letter, "id") == killer
    assert kafka_value(letter, "dlq-reason") == "delivery-limit"
    assert _events(ledger, "kills") == ["kills"] * LIMIT
    assert len({line[2] for line in ledger.lines() if line[0] == "lasted"}) == 15
    # Suspected once, and never beside another suspect again.
    assert max(int(line[3]) for line in ledger.lines() if line[0] == "lasts") == 2


@pytest.mark.slow
def test_only_a_violent_end_counts(system: Any, ledger: Ledger) -> None:
    """Killed: one attempt. Told to stop at once, and to stop in order: none."""
    told = system.directory / "told"
    system.send("tests.lasts", 0.0, str(told), partition=0)
    worker = system.worker(0)

    def started(times: int) -> None:
        system.wait("a start", lambda: len(_events(ledger, "lasts")) == times)

    worker.start()
    started(1)
    worker.kill()
    worker.start()
    started(2)
    worker.terminate(signal.SIGQUIT)
    worker.wait(120)
    worker.start()
    started(3)
    worker.terminate()
    told.touch()
    assert worker.stop() == 0
    assert [line[3] for line in ledger.lines() if line[0] == "lasts"] == ["1", "2", "2"]
    assert _events(ledger, "lasted") == ["lasted"]
    assert system.lag() == 0
    assert system.dead_letters() == []
    assert not list(worker.state.glob("*.begun"))
