"""The task of chaos runs: it notes its start and its end (`CELERY_APP_MODULE=tests.chaos.work`)."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Task, shared_task

from tests.chaos.history import History

__all__ = ["step"]


@shared_task(bind=True, name="chaos.step")
def step(self: Task, queue: str, lane: str, number: int, late: bool, seconds: float) -> None:
    """Work for `seconds` as task `number` of a lane (a partition, a key, or all of the queue)."""
    history = History(Path(os.environ["CHAOS_HISTORY"]))
    request = self.request
    facts = {
        "q": queue,
        "lane": lane,
        "n": number,
        "late": late,
        "at": [request.get("kafka_partition"), request.get("kafka_offset")],
        "worker": os.environ["CELERY_UNIT"],
        "pid": os.getpid(),
    }
    history.note("start", **facts)
    time.sleep(seconds)
    history.note("end", **facts)
