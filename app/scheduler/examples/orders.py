"""An order's life, one task a step, keyed by the order so that its steps run in their order.

    for step in ("place", "pay", "ship", "deliver"):
        advance.apply_async(("42", step), partition_key="order-42")

Without order this breaks: an order that is shipped before it is paid is refused, and the refused
step goes to the dead letter topic, where a person decides.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import shared_task

__all__ = ["STEPS", "InvalidTransitionError", "advance", "advance_order", "next_state"]

#: What a step does: the state it needs, and the state it leads to; in the order of an order's life.
_TRANSITIONS = {
    "place": ("new", "placed"),
    "pay": ("placed", "paid"),
    "ship": ("paid", "shipped"),
    "deliver": ("shipped", "delivered"),
}

#: The steps of an order's life.
STEPS = tuple(_TRANSITIONS)

#: Seconds after which an order is forgotten here; a shop would keep it.
KEEP = 86400


class InvalidTransitionError(ValueError):
    """A step came that the order's state does not allow."""


def next_state(state: str, step: str) -> str:
    """Return the state after `step`.

    A step that has been done already changes nothing, so a task that runs twice does no harm.

    Raises:
        InvalidTransitionError: The step is unknown, or comes too early.
    """
    if step not in _TRANSITIONS:
        raise InvalidTransitionError(f"There is no step {step!r} in an order's life.")
    needed, reached = _TRANSITIONS[step]
    passed = [after for _, after in _TRANSITIONS.values()]
    if state in passed and passed.index(state) >= passed.index(reached):
        return state
    if state != needed:
        raise InvalidTransitionError(
            f"An order that is {state} can't {step}: it must be {needed} first."
        )
    return reached


@shared_task(name="orders.advance")
def advance(order: str, step: str) -> str:
    """Take an order one step further and return its new state."""
    return advance_order(order, step)


def advance_order(order: str, step: str) -> str:
    """Do a step of an order's life and store it: the new state is there or the old one is."""
    with _orders() as orders:
        row = orders.execute("SELECT state FROM orders WHERE id = ?", (order,)).fetchone()
        state = next_state(row[0] if row else "new", step)
        orders.execute(
            "INSERT INTO orders (id, state, changed) VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET state = excluded.state, changed = excluded.changed",
            (order, state, time.time()),
        )
        orders.execute("DELETE FROM orders WHERE changed < ?", (time.time() - KEEP,))
        return state


@contextmanager
def _orders() -> Iterator[sqlite3.Connection]:
    """A transaction on the orders, in a file that stands for the database a shop would have."""
    directory = Path(os.environ.get("STATE_DIRECTORY") or tempfile.gettempdir())
    connection = sqlite3.connect(directory / "orders.sqlite", timeout=30)
    try:
        with connection:
            # Killed processes lose nothing by this, only a power cut does.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, state TEXT, changed REAL)"
            )
            yield connection
    finally:
        connection.close()
