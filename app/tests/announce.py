"""An app of a team's own: its workers share a topic, and each hears what is announced."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from kombu import Queue
from kombu.common import Broadcast

from tests.ledger import Ledger

app = Celery("announce")
app.conf.update(
    task_queues=[Queue(os.environ.get("ANNOUNCE_TOPIC", "announce")), Broadcast("announcements")],
    task_routes={
        "announce.hear": {"queue": "announcements", "exchange": "announcements"},
        "announce.refuse": {"queue": "announcements", "exchange": "announcements"},
    },
    task_send_sent_event=True,
    worker_send_task_events=True,
)


@app.task(name="announce.hear", ignore_result=True)
def hear(number: int) -> None:
    """Say that this worker heard it."""
    Ledger(Path(os.environ["LEDGER_FILE"])).note("heard", number, os.getppid())


@app.task(name="announce.refuse", ignore_result=True)
def refuse() -> None:
    """Fail."""
    raise ValueError("not here")


@app.task(name="announce.add")
def add(x: int, y: int) -> int:
    """Add."""
    return x + y
