"""Queue a step of orders' lives, each to its order's partition: orders.py STEP ORDER..."""

from __future__ import annotations

import sys

from scheduler.app import app
from scheduler.examples.orders import advance

app.set_current()
for order in sys.argv[2:]:
    advance.apply_async((order, sys.argv[1]), partition_key=order)
