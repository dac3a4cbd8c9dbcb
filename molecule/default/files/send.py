"""Queues COUNT reports in PARTITION: send.py COUNT PARTITION."""

from __future__ import annotations

import sys

from scheduler.app import app

for _ in range(int(sys.argv[1])):
    app.send_task("reports.sales", args=[[["tea", 1, "2.50"]]], partition=int(sys.argv[2]))
