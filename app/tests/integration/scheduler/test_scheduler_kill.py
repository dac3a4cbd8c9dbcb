"""Workers that are killed or restarted under load: what is lost, what runs twice."""

from __future__ import annotations

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


def _send(system: Any, tasks: int) -> None:
    for number in range(tasks):
        sequence, partition = divmod(number, PARTITIONS)
        system.send("ledger.entry", sequence, 0.002, partition=partition)


def _wait_for(system: Any, ledger: Ledger, tasks: int) -> None:
    system.wait(f"{tasks} tasks", lambda: ledger.ended() >= tasks)


@pytest.mark.slow
def test_kill(system: Any, ledger: Ledger) -> None:
    """Ten times `kill -9`: none is lost, all in order, what ran twice was in flight."""
    tasks = 1000
    _send(system, tasks)
    system.arguments.append("--without-mingle")  # which takes a second of every start
    worker = system.worker(*range(PARTITIONS))
    for kill in range(KILLS):
        worker.start()
        _wait_for(system, ledger, (kill + 1) * tasks // (KILLS + 1))
        worker.kill()
        ledger.note("kill")
    assert ledger.ended() < tasks, "the kills must hit a worker that works"
    worker.start()
    _wait_for(system, ledger, tasks)
    system.wait_done()
    verdict = ledger.check(dict.fromkeys(range(PARTITIONS), tasks // PARTITIONS))
    assert verdict.ok, verdict
    # At most one task of a partition is in flight at a time.
    assert verdict.repeats <= KILLS * PARTITIONS
    assert system.dead_letters() == []


@pytest.mark.slow
def test_restart(system: Any, ledger: Ledger) -> None:
    """Told to stop and started again: none is lost, and none runs twice."""
    tasks = 400
    _send(system, tasks)
    system.arguments.append("--without-mingle")  # which takes a second of every start
    worker = system.worker(*range(PARTITIONS))
    for restart in range(RESTARTS):
        worker.start()
        _wait_for(system, ledger, (restart + 1) * tasks // (RESTARTS + 1))
        assert worker.stop() == 0
    assert ledger.ended() < tasks, "the restarts must hit a worker that works"
    worker.start()
    _wait_for(system, ledger, tasks)
    system.wait_done()
    verdict = ledger.check(dict.fromkeys(range(PARTITIONS), tasks // PARTITIONS))
    assert verdict.ok, verdict
    assert verdict.repeats == 0
