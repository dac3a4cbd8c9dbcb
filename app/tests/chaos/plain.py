"""The app that every broker gets in the comparison: Celery's defaults, and late acknowledgement."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from celery import Celery, Task

import kombu_kafka
from tests.chaos.history import History

__all__ = ["app", "step"]

kombu_kafka.register()

app = Celery("compare", broker=os.environ.get("COMPARE_BROKER"))
app.conf.update(
    task_default_queue="compare",
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options=json.loads(os.environ.get("COMPARE_OPTIONS", "{}")),
)


@app.task(bind=True, name="compare.step")
def step(self: Task, lane: str, number: int) -> None:
    """Work for a moment."""
    history = History(Path(os.environ["CHAOS_HISTORY"]))
    facts = {"q": "compare", "lane": lane, "n": number, "late": False, "at": [0, number]}
    # A thread runs one task at a time, so it stands for the process here.
    facts |= {"worker": "compare", "pid": f"{os.getpid()}-{self.request.id}"}
    history.note("start", **facts)
    time.sleep(0.02)
    history.note("end", **facts)
