"""The example tasks do what their docstrings say."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.examples import flaky, orders, reports


@pytest.mark.parametrize(
    ("state", "step", "after"),
    [
        ("new", "place", "placed"),
        ("placed", "pay", "paid"),
        ("paid", "ship", "shipped"),
        ("shipped", "deliver", "delivered"),
        ("paid", "pay", "paid"),
        ("delivered", "place", "delivered"),
    ],
)
def test_next_state(state: str, step: str, after: str) -> None:
    assert orders.next_state(state, step) == after


@pytest.mark.parametrize(("state", "step"), [("new", "pay"), ("placed", "ship"), ("new", "eat")])
def test_a_step_too_early_is_refused(state: str, step: str) -> None:
    with pytest.raises(orders.InvalidTransitionError):
        orders.next_state(state, step)


def test_an_orders_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert [orders.advance_order("42", step) for step in orders.STEPS] == [
        "placed",
        "paid",
        "shipped",
        "delivered",
    ]
    with pytest.raises(orders.InvalidTransitionError, match="An order that is new can't ship"):
        orders.advance_order("43", "ship")


def test_report() -> None:
    report = reports.sales_report([["tea", 2, "3.50"], ["cup", 1, "9.99"], ["tea", 1, "3.50"]])
    assert report == {"sales": 3, "total": "20.49", "best": [["tea", "10.50"], ["cup", "9.99"]]}


def test_report_names_the_sale_it_can_not_use() -> None:
    with pytest.raises(ValueError, match="Sale 2 has no usable price: 'free'"):
        reports.sales_report([["tea", 2, "3.50"], ["cup", 1, "free"]])


def test_an_unknown_currency_is_no_passing_error() -> None:
    with pytest.raises(KeyError, match="GBP"):
        flaky.fetch_rate("GBP")
