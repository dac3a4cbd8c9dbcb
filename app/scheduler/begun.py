"""Who works on which record, noted where a death of the whole worker leaves it.

The pool's child (or thread) notes the record before the task's first line; `kombu_kafka.consuming.attempts`
tells what becomes of a note that is left. A thread takes its note back afterwards. A child leaves it
until its next task: its parent may be dead, by that very task, before the task has ended. What was
acknowledged is known as done, so a note of it says nothing.
"""

from __future__ import annotations

from typing import Any

from billiard.process import current_process
from celery import Celery, signals

from kombu_kafka.consuming import attempts

__all__ = ["note_what_runs"]

#: Name of a worker's main process, where the pool has no children.
MAIN = "main"


def note_what_runs(celery: Celery, state_directory: str) -> None:
    """Have each process of `celery`'s workers note the records that its tasks came from."""

    def begin(task: Any, **_: Any) -> None:
        record = _record(task)
        attempt = task.request.get("kafka_attempt")
        if task.app is celery and record is not None and attempt is not None:
            child = _child()
            attempts.begin(
                state_directory, child or MAIN, *record, int(attempt), alone=child is not None
            )

    def end(task: Any, **_: Any) -> None:
        record = _record(task)
        if task.app is celery and record is not None and _child() is None:
            attempts.end(state_directory, MAIN, *record)

    # Celery keeps these for ever, as it does the app.
    signals.task_prerun.connect(begin, weak=False)
    signals.task_postrun.connect(end, weak=False)


def _record(task: Any) -> tuple[str, int, int] | None:
    request = task.request
    offset = request.get("kafka_offset")
    if offset is None or request.is_eager:
        return None
    return request.kafka_topic, int(request.kafka_partition), int(offset)


def _child() -> str | None:
    """Name this child among those of its worker, its predecessors' name; None in a main process."""
    index = getattr(current_process(), "index", None)
    return None if index is None else f"child-{index}"
