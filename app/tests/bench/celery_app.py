"""The app that every contender gets: what differs comes from the environment."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from celery import Celery

import kombu_kafka
from tests.bench.marks import Marks

__all__ = ["app", "noop", "pause"]

kombu_kafka.register()

app = Celery("bench", broker=os.environ.get("BENCH_BROKER"))
app.conf.update(
    task_default_queue=os.environ.get("BENCH_QUEUE", "bench"),
    task_acks_late=True,
    task_ignore_result=True,
    # With Celery's default of 4, a solo worker on RabbitMQ sleeps with acknowledgements in its hands
    # (kombu's Hub polls although callbacks wait), until a timer wakes it: 25 tasks a minute.
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
    worker_proc_alive_timeout=60.0,
    broker_transport_options=json.loads(os.environ.get("BENCH_OPTIONS", "{}")),
)
app.conf.update(json.loads(os.environ.get("BENCH_SETTINGS", "{}")))

_marks = Marks(Path(os.environ["BENCH_MARKS"])) if "BENCH_MARKS" in os.environ else None


@app.task(name="bench.noop")
def noop(number: int) -> None:
    """Do nothing, and say when."""
    if _marks is not None:
        _marks.mark(number)


@app.task(name="bench.pause")
def pause(number: int, seconds: float) -> None:
    """Wait, as for somebody's answer."""
    if _marks is not None:
        _marks.mark(number)
    time.sleep(seconds)
