"""The judge must be right: what it lets pass, and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ledger import Ledger


def _ledger(path: Path, *events: str) -> Ledger:
    """Write events such as "start 0 5": partition 0, offset 5 (and sequence 5)."""
    ledger = Ledger(path / "ledger")
    for event in events:
        name, *numbers = event.split()
        ledger.note(name, *(int(number) for number in (*numbers, *numbers[1:])))
    return ledger


def test_a_clean_run(tmp_path: Path) -> None:
    ledger = _ledger(
        tmp_path, "start 0 0", "start 1 0", "end 1 0", "end 0 0", "start 0 1", "end 0 1"
    )
    verdict = ledger.check({0: 2, 1: 1})
    assert verdict.ok
    assert verdict.repeats == 0
    assert ledger.ended() == 3


def test_what_was_in_flight_may_run_again(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path, "start 0 0", "kill", "start 0 0", "end 0 0")
    verdict = ledger.check({0: 1})
    assert verdict.ok
    assert verdict.repeats == 1


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        (["start 0 0", "end 0 0", "start 0 0", "end 0 0"], "nothing was killed"),
        (
            ["start 0 0", "end 0 0", "start 0 1", "end 0 1", "kill", "start 0 0", "end 0 0"],
            "1 ran after it",
        ),
        (["start 0 1", "end 0 1", "start 0 0", "end 0 0"], "ran after offset 1"),
        (["start 0 0", "start 0 1", "end 0 0", "end 0 1"], "started while offset 0 ran"),
        (
            ["start 0 0", "end 0 0", "kill", "start 0 1", "end 0 1", "start 0 1", "end 0 1"],
            "nothing was killed",
        ),
    ],
)
def test_broken_order_and_wrong_repeats(tmp_path: Path, events: list[str], complaint: str) -> None:
    verdict = _ledger(tmp_path, *events).check({0: 2})
    assert any(complaint in fault for fault in verdict.faults)


def test_a_task_that_started_but_never_ended_is_lost(tmp_path: Path) -> None:
    verdict = _ledger(tmp_path, "start 0 0", "end 0 0", "start 0 1", "kill").check({0: 2})
    assert verdict.lost == [(0, 1)]
