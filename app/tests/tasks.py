"""Tasks that end in every way a task can."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from celery import Task, shared_task
from kafka.errors import KafkaTimeoutError

from tests.ledger import Ledger

__all__ = ["dies", "fails", "hangs", "hard_error", "note", "retries"]


def _note(task: Task, event: str) -> None:
    request = task.request
    ledger = Ledger(Path(os.environ["LEDGER_FILE"]))
    ledger.note(event, request.kafka_partition, request.kafka_offset, request.retries)


@shared_task(bind=True, name="tests.note")
def note(self: Task) -> None:
    """Say that it ran."""
    _note(self, "note")


@shared_task(bind=True, name="tests.fails")
def fails(self: Task, text: str, seconds: float = 0.0) -> None:
    """Fail for good."""
    _note(self, "fails")
    time.sleep(seconds)
    raise ValueError(text)


@shared_task(bind=True, name="tests.dies")
def dies(self: Task) -> None:
    """Take the child process down, as the kernel does when memory runs out."""
    _note(self, "dies")
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True, name="tests.hangs", time_limit=2)
def hangs(self: Task) -> None:
    """Exceed the hard time limit."""
    _note(self, "hangs")
    time.sleep(60)


@shared_task(bind=True, name="tests.hard_error", autoretry_for=(Exception,), max_retries=3)
def hard_error(self: Task) -> None:
    """Meet Kafka's absence."""
    _note(self, "hard_error")
    raise KafkaTimeoutError("no broker")


@shared_task(
    bind=True,
    name="tests.retries",
    autoretry_for=(TimeoutError,),
    max_retries=2,
    default_retry_delay=0.1,
)
def retries(self: Task) -> None:
    """Meet errors that would pass, for longer than it may retry."""
    _note(self, "retries")
    raise TimeoutError("busy")
