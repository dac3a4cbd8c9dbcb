"""Print what this host's workers know of orders: order_states.py ORDER..."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

for path in Path("/var/lib").glob("**/orders.sqlite"):
    with closing(sqlite3.connect(path, timeout=30)) as orders:
        for order in sys.argv[1:]:
            for (state,) in orders.execute("SELECT state FROM orders WHERE id = ?", (order,)):
                print(order, state)
