"""`kill -9` of a worker, ten times over, under a thousand tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ledger import Ledger

TASKS = 1000
KILLS = 10
PARTITIONS = 4


@pytest.fixture
def modules() -> str:
    return "tests.ledger"


def test_kill(system: Any, tmp_path: Path) -> None:
    """None is lost, each partition runs in its order, what ran twice was in flight."""
    ledger = Ledger(tmp_path / "ledger")
    for sequence in range(TASKS // PARTITIONS):
        for partition in range(PARTITIONS):
            system.send("ledger.entry", sequence, 0.002, partition=partition)
    worker = system.worker(*range(PARTITIONS))
    for kill in range(KILLS):
        worker.start()
        goal = (kill + 1) * TASKS // (KILLS + 1)
        system.wait(f"{goal} tasks", lambda goal=goal: ledger.ended() >= goal)
        worker.kill()
        ledger.note("kill")
    assert ledger.ended() < TASKS, "the kills must hit a worker that works"
    worker.start()
    system.wait("all tasks", lambda: ledger.ended() == TASKS)
    system.wait_done()
    verdict = ledger.check(dict.fromkeys(range(PARTITIONS), TASKS // PARTITIONS))
    assert verdict.ok, verdict
    # At most one task of a partition is in flight at a time.
    assert verdict.repeats <= KILLS * PARTITIONS
    assert system.dead_letters() == []
