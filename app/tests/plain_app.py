"""A Celery app that only changes its broker URL: everything else is Celery's default."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

import kombu_kafka
from tests.ledger import Ledger

__all__ = ["app", "note"]

kombu_kafka.register()
app = Celery("plain", broker=os.environ["PLAIN_BROKER_URL"])


@app.task(name="plain.note")
def note(number: int) -> None:
    """Say that it ran."""
    Ledger(Path(os.environ["LEDGER_FILE"])).note("note", number)
