"""Worker processes that share partitions, or must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ledger import Ledger


@pytest.fixture
def modules() -> str:
    return "tests.ledger"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def test_a_worker_that_is_killed_in_a_group_loses_nothing(system: Any, ledger: Ledger) -> None:
    """Killed under load and started again under its name: none is lost, the others go on."""
    tasks = 400
    for number in range(tasks):
        sequence, partition = divmod(number, 4)
        system.send("ledger.entry", sequence, 0.002, partition=partition)
    first, second = (system.group_worker(name, 6) for name in ("one", "two"))
    for worker in (first, second):
        worker.start()
    for worker in (first, second):
        worker.wait_ready()
    system.wait("a quarter", lambda: ledger.ended() >= tasks // 4)
    first.kill()
    ledger.note("kill")
    first.start()
    system.wait(f"{tasks} tasks", lambda: ledger.ended() >= tasks)
    system.wait_done()
    verdict = ledger.check(dict.fromkeys(range(4), tasks // 4))
    assert verdict.lost == []
    assert system.dead_letters() == []
