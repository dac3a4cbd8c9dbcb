"""What the receipts of a smoke run prove."""

from __future__ import annotations

import pytest

from scheduler.smoke import PartitionResult, SmokeResult, judge
from scheduler.smoke_tasks import Receipt


def _receipt(sequence: int, *, started: float | None = None, offset: int | None = None) -> Receipt:
    began = float(sequence) if started is None else started
    return Receipt(
        run="r",
        sequence=sequence,
        task_id=f"id-{sequence}",
        partition=0,
        offset=100 + sequence if offset is None else offset,
        host="kafka1",
        unit="celery-worker@0.service",
        started=began,
        finished=began + 0.5,
    )


def test_all_in_order() -> None:
    result = judge(0, 3, [_receipt(0), _receipt(1), _receipt(2)])
    assert (result.done, result.repeats, result.in_order) == (3, 0, True)
    assert result.hosts == ["kafka1"]
    assert result.units == ["celery-worker@0.service"]


def test_the_last_task_may_run_again() -> None:
    result = judge(0, 2, [_receipt(0), _receipt(0, started=0.7), _receipt(1, started=2)])
    assert (result.done, result.repeats, result.in_order) == (2, 1, True)


@pytest.mark.parametrize(
    ("receipts", "complaint"),
    [
        ([_receipt(1), _receipt(0)], "offset 100 ran after 101"),
        ([_receipt(0), _receipt(1, started=0.2)], "offset 101 began before 100 had ended"),
        ([_receipt(0), _receipt(1), _receipt(0, started=9)], "offset 100 ran again after 101"),
    ],
)
def test_disorder(receipts: list[Receipt], complaint: str) -> None:
    assert judge(0, 2, receipts).disorder == complaint


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (PartitionResult(0, sent=2, done=1, lag=0), "1 of 2 tasks of partition 0 of tasks"),
        (PartitionResult(0, sent=2, done=2, lag=3), "its lag is 3 after 7 s"),
        (PartitionResult(0, sent=2, done=2, lag=None), "its lag is unknown"),
        (PartitionResult(0, sent=2, done=2, lag=0, disorder="5 ran after 6"), "5 ran after 6"),
    ],
)
def test_a_fault_is_one_sentence(part: PartitionResult, says: str) -> None:
    fault = SmokeResult("r", "tasks", 7.0, [part]).fault
    assert fault is not None
    assert says in fault
    assert "\n" not in fault


def test_no_fault() -> None:
    assert SmokeResult("r", "tasks", 7.0, [PartitionResult(0, 2, done=2, lag=0)]).fault is None


def test_receipts_of_others_are_recognized() -> None:
    with pytest.raises((TypeError, ValueError)):
        Receipt.from_json(b'{"run": "r"}')
    with pytest.raises((TypeError, ValueError)):
        Receipt.from_json(b"hello")
