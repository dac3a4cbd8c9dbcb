"""What a worker checks before it starts: in a limited time, with one sentence for what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from celery import Celery
from kombu.utils.imports import symbol_by_name

from kombu_kafka import topics
from kombu_kafka.errors import BrokerUnavailableError, KombuKafkaError
from scheduler.broker import broker_options
from scheduler.request import DeadLetterRequest
from scheduler.settings import Settings

__all__ = [
    "EX_CONFIG",
    "EX_UNAVAILABLE",
    "StartError",
    "check_worker",
    "end",
    "is_celery_command",
    "refuse_bad_start",
]

#: From sysexits.h. A worker that ends with EX_CONFIG must be mended before it is started again …
EX_CONFIG = 78
#: … and one that ends with EX_UNAVAILABLE may be: brokers come back.
EX_UNAVAILABLE = 69


class StartError(Exception):
    """A worker can't start; the message says why and what to do.

    Attributes:
        exit_code: What the process ends with.
    """

    def __init__(self, sentence: str, exit_code: int = EX_CONFIG) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def check_worker(app: Celery, settings: Settings) -> None:
    """Raise `StartError` unless a worker of `app` can do its work under `settings`."""
    _check_tasks(app)
    options = broker_options(app)
    try:
        count = topics.partition_count(options, settings.topic)
    except BrokerUnavailableError as exc:
        raise StartError(str(exc), EX_UNAVAILABLE) from exc
    except KombuKafkaError as exc:
        raise StartError(str(exc)) from exc
    absent = [number for number in settings.partitions or () if number >= count]
    if absent:
        raise StartError(
            f"CUSTOM_PARTITION names partition {absent[0]}, but the topic {settings.topic} has"
            f" {count} (0 to {count - 1}): grow the topic or correct the number."
        )


def _check_tasks(app: Celery) -> None:
    for name, task in sorted(app.tasks.items()):
        if not task.acks_late:
            raise StartError(
                f"The task {name} sets acks_late=False, so neither order nor its record could be"
                " kept when it fails: remove that setting."
            )
        if not issubclass(symbol_by_name(task.Request), DeadLetterRequest):
            raise StartError(
                f"The task {name} has a base class that is no scheduler.DeadLetterTask, so it"
                " would be lost when it fails: derive that class from DeadLetterTask."
            )


def refuse_bad_start(app: Celery, settings: Settings) -> None:
    """End the process with one sentence if a worker can't start."""
    try:
        check_worker(app, settings)
    except StartError as exc:
        end(str(exc), exc.exit_code)
    except KombuKafkaError as exc:
        end(str(exc), EX_CONFIG)


def is_celery_command() -> bool:
    """Say whether this process runs Celery's command, which shows any exception as a traceback."""
    command = Path(sys.argv[0])
    return command.name == "celery" or command.parts[-2:] == ("celery", "__main__.py")


def end(sentence: str, exit_code: int) -> NoReturn:
    """End the process with one sentence."""
    print(f"scheduler: {sentence}", file=sys.stderr, flush=True)
    raise SystemExit(exit_code)
