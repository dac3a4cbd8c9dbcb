"""Workers that are killed or restarted under load: what is lost, what runs twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.ledger import Ledger

KILLS = 10
RESTARTS = 3
PARTITIONS = 4


@pytest.fixture
def modules() -> str:
    return "tests.ledger"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def _worker(system: Any) -> Any:
    """A worker with a child for each partition, so that a task that waits holds up no other partition."""
    system.arguments.extend(["-c", str(PARTITIONS)])
    system.arguments.append("--without-mingle")  # which takes a second of every start
    return system.worker(*range(PARTITIONS))


def _send(system: Any, tasks: int, gates: Mapping[int, Path]) -> None:
    """Send tasks; in each partition those of the numbers in `gates` end only once a file is there."""
    for number in range(tasks):
        sequence, partition = divmod(number, PARTITIONS)
        until = str(gates[sequence]) if sequence in gates else None
        system.send("ledger.entry", sequence, 0.002, until, partition=partition)


def _wait_for(system: Any, ledger: Ledger, tasks: int) -> None:
    system.wait(f"{tasks} tasks", lambda: ledger.ended() >= tasks)


def _begun(ledger: Ledger, sequence: str) -> bool:
    begun = {line[1] for line in ledger.lines() if line[0] == "start" and line[3] == sequence}
    return len(begun) == PARTITIONS


@pytest.mark.slow
def test_kill(system: Any, ledger: Ledger, tmp_path: Path) -> None:
    """Ten times `kill -9`: none is lost, all in order, what ran twice was in flight.

    The last task of each partition ends after the last kill, so that all of them hit a worker that works.
    """
    tasks, killed = 1000, tmp_path / "killed"
    _send(system, tasks, {tasks // PARTITIONS - 1: killed})
    worker = _worker(system)
    for kill in range(KILLS):
        worker.start()
        _wait_for(system, ledger, (kill + 1) * tasks // (KILLS + 1))
        worker.kill()
        ledger.note("kill")
    killed.touch()
    worker.start()
    _wait_for(system, ledger, tasks)
    system.wait_done()
    verdict = ledger.check(dict.fromkeys(range(PARTITIONS), tasks // PARTITIONS))
    assert verdict.ok, verdict
    # At most one task of a partition is in flight at a time.
    assert verdict.repeats <= KILLS * PARTITIONS
    assert system.dead_letters() == []


@pytest.mark.slow
def test_restart(system: Any, ledger: Ledger, tmp_path: Path) -> None:
    """Told to stop and started again: none is lost, and none runs twice.

    Each stop is awaited by a task of each partition, so the worker has some in hand and others before it.
    """
    tasks = 400
    share = tasks // PARTITIONS
    gates = {(n + 1) * share // (RESTARTS + 1): tmp_path / f"stop-{n}" for n in range(RESTARTS)}
    _send(system, tasks, gates)
    worker = _worker(system)
    for sequence, told in gates.items():
        worker.start()
        system.wait(f"task {sequence} everywhere", lambda n=str(sequence): _begun(ledger, n))
        worker.terminate()
        told.touch()
        assert worker.stop() == 0
        assert ledger.ended() < tasks, "the restarts must hit a worker that works"
    worker.start()
    _wait_for(system, ledger, tasks)
    system.wait_done()
    verdict = ledger.check(dict.fromkeys(range(PARTITIONS), share))
    assert verdict.ok, verdict
    assert verdict.repeats == 0
