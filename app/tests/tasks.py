"""Tasks that end in every way a task can."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import time
from pathlib import Path

from celery import Task, shared_task
from celery.exceptions import Ignore, Reject
from kafka.errors import KafkaTimeoutError

from tests.ledger import Ledger

__all__ = [
    "declared_hard",
    "dies",
    "eats",
    "fails",
    "fails_until",
    "hangs",
    "hard_error",
    "ignores",
    "kills",
    "lasts",
    "note",
    "rejects",
    "retries",
    "unpicklable",
]


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


@shared_task(bind=True, name="tests.eats")
def eats(self: Task, megabytes: int) -> None:
    """Take memory until the kernel kills the child; it does so itself where nothing limits it."""
    _note(self, "eats")
    eaten = [bytearray(1024 * 1024) for _ in range(megabytes)]
    os.kill(os.getpid(), signal.SIGKILL if eaten else 0)


@shared_task(bind=True, name="tests.kills")
def kills(self: Task, how: str, seconds: float = 0.0) -> None:
    """Take the whole worker down (with the pools solo and threads, `segfault` and `exit` do)."""
    _note(self, "kills")
    time.sleep(seconds)
    if how == "parent":
        os.kill(os.getppid(), signal.SIGKILL)
    elif how == "segfault":
        faulthandler.disable()
        ctypes.string_at(0)
    else:
        os._exit(9)


@shared_task(bind=True, name="tests.lasts")
def lasts(self: Task, seconds: float, until: str | None = None) -> None:
    """Note which attempt this is, work for `seconds` and until the file `until` is there, note the end."""
    request = self.request
    ledger = Ledger(Path(os.environ["LEDGER_FILE"]))
    ledger.note("lasts", request.kafka_partition, request.kafka_offset, request.kafka_attempt)
    time.sleep(seconds)
    while until is not None and not Path(until).exists():
        time.sleep(0.02)
    ledger.note("lasted", request.kafka_partition, request.kafka_offset, request.kafka_attempt)


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


@shared_task(bind=True, name="tests.again")
def again(self: Task, seconds: float) -> None:
    """Ask to be run once more after a while."""
    _note(self, "again")
    if not self.request.retries:
        raise self.retry(countdown=seconds)


@shared_task(bind=True, name="tests.rejects")
def rejects(self: Task) -> None:
    """Refuse its message."""
    raise Reject("not mine", requeue=False)


@shared_task(bind=True, name="tests.ignores")
def ignores(self: Task) -> None:
    """Want neither result nor letter."""
    _note(self, "ignores")
    raise Ignore


@shared_task(bind=True, name="tests.declared_hard", autoretry_for=(Exception,), hard=(LookupError,))
def declared_hard(self: Task) -> None:
    """Meet an error that the task says no retry mends."""
    _note(self, "declared_hard")
    raise KeyError("gone for good")


class UnpicklableError(Exception):
    """Can't be made from what it says."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


@shared_task(bind=True, name="tests.unpicklable")
def unpicklable(self: Task) -> None:
    """Raise what doesn't survive the way to the parent process."""
    raise UnpicklableError("this", "that")


@shared_task(
    bind=True, name="tests.fails_until", autoretry_for=(ConnectionError,), max_retries=1,
    default_retry_delay=0.5,
)  # fmt: skip
def fails_until(self: Task, cause: str) -> None:
    """Fail until a file is there: the cause is mended."""
    _note(self, "fails_until")
    if not Path(cause).exists():
        raise ConnectionError("the shop is away")
