"""A Celery app as anybody writes one: it changes its broker URL, and nothing else of Celery's."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded
from kombu import Queue

import kombu_kafka

kombu_kafka.register()
if level := os.environ.get("PLAIN_KAFKA_LEVEL"):
    logging.getLogger("kafka").setLevel(level)

app = Celery(
    "plain", broker=os.environ.get("PLAIN_BROKER"), backend=os.environ.get("PLAIN_RESULTS")
)
app.conf.update(
    broker_transport_options=json.loads(os.environ.get("PLAIN_OPTIONS", "{}")),
    broker_connection_retry_on_startup=True,
    worker_proc_alive_timeout=60,
    **json.loads(os.environ.get("PLAIN_SETTINGS", "{}")),
)
if names := os.environ.get("PLAIN_QUEUES"):
    app.conf.task_queues = [Queue(name) for name in names.split(",")]


def _note(*words: object) -> None:
    with Path(os.environ["PLAIN_LEDGER"]).open("a") as ledger:
        ledger.write(" ".join(map(str, words)) + "\n")


@app.task(name="plain.add")
def add(x: int, y: int) -> int:
    """Add."""
    return x + y


@app.task(name="plain.total")
def total(numbers: list[int]) -> int:
    """Sum up."""
    return sum(numbers)


@app.task(name="plain.where", bind=True)
def where(self: Task) -> dict[str, Any]:
    """Say which record and process this is."""
    return {"topic": self.request.get("kafka_topic"), "pid": os.getpid()}


@app.task(name="plain.work")
def work(name: str, seconds: float) -> str:
    """Take a while; acknowledged early."""
    _note("start", name)
    time.sleep(seconds)
    _note("end", name)
    return name


@app.task(name="plain.work_late", acks_late=True)
def work_late(name: str, seconds: float) -> str:
    """Take a while; acknowledged at the end."""
    _note("start", name)
    time.sleep(seconds)
    _note("end", name)
    return name


@app.task(name="plain.again", bind=True, max_retries=3)
def again(self: Task, times: int) -> int:
    """Succeed after some retries."""
    if self.request.retries < times:
        raise self.retry(countdown=0.2)
    return int(self.request.retries)


@app.task(name="plain.limited", rate_limit="20/s")
def limited(number: int) -> tuple[int, float]:
    """Run at most twenty times a second."""
    return number, time.time()


@app.task(name="plain.patient", soft_time_limit=1, time_limit=30)
def patient() -> str:
    """Notice the soft time limit."""
    try:
        time.sleep(20)
    except SoftTimeLimitExceeded:
        return "soft"
    return "none"


@app.task(name="plain.stubborn", time_limit=1)
def stubborn() -> None:
    """Exceed the hard time limit."""
    time.sleep(20)
