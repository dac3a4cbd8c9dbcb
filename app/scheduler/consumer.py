"""Celery's consumer: a stop forgets no task it has given to a child, and a refused record says why."""

from __future__ import annotations

import time
from typing import Any

from celery.exceptions import NotRegistered
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.exceptions import ContentDisallowed

from kombu_kafka.errors import NotOwnerError
from scheduler.preflight import EX_CONFIG

__all__ = ["ACCEPT_SECONDS", "Consumer"]

logger = get_logger(__name__)

#: Longest wait, at a stop, for children to take what was written to them; they take milliseconds.
ACCEPT_SECONDS = 5.0


class Consumer(CeleryConsumer):
    """Celery 5.7's consumer, but for two things.

    When a worker stops, Celery's prefork pool forgets each task that no child has accepted yet,
    because the broker will deliver it again. One that is on its way to a child runs all the same:
    its result is dropped, the child waits half a minute for somebody to read it, and after the
    restart the task runs a second time. So at a stop the event loop goes on until what was given
    to the children is accepted. Then it is waited for like every running task.

    What Celery can't make a task of it rejects without a reason; the dead letter tells one.
    """

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """A record that names no task."""
        _refuse(message, "no-task", "", "The message names no task.")
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task that this worker has not got."""
        told = f"No task of this name is registered in the worker: {exc}"
        _refuse(message, "unknown-task", NotRegistered.__name__, told, self.hostname)
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A message that names a task but is none."""
        reason = "undecodable" if isinstance(exc, ContentDisallowed) else "invalid-task"
        _refuse(message, reason, type(exc).__name__, str(exc), self.hostname)
        super().on_invalid_task(body, message, exc)

    def start(self) -> None:
        """Consume until the end; a worker whose partitions are another's must not be restarted."""
        try:
            super().start()
        except NotOwnerError as exc:
            logger.critical("%s", exc)
            raise SystemExit(EX_CONFIG) from exc

    def on_close(self) -> None:
        """Empty Celery's queues; called at a stop, and when a connection was lost."""
        if state.should_stop is not None and state.should_terminate is None:
            self._await_acceptance()
        super().on_close()

    def _await_acceptance(self) -> None:
        pool = getattr(self.pool, "_pool", None)
        if self.hub is None or pool is None or not hasattr(pool, "_active_writers"):
            return  # only the prefork pool with an event loop works so
        if self.task_consumer is not None:
            self.task_consumer.cancel()  # nothing new meanwhile
        loop = self.hub.create_loop()
        deadline = time.monotonic() + ACCEPT_SECONDS
        while any(_on_its_way(job) for job in tuple(pool._cache.values())):
            if time.monotonic() > deadline:
                logger.warning(
                    "A child did not take its task within %g seconds: the task may run twice.",
                    ACCEPT_SECONDS,
                )
                return
            self.hub.call_later(0.05, _nothing)  # or the loop would wait for long without news
            next(loop)


def _on_its_way(job: Any) -> bool:
    return job._scheduled_for is not None and not job._accepted and not job.ready()


def _nothing() -> None:
    """Wake the event loop."""


def _refuse(message: Any, reason: str, exception: str, told: str, worker: str = "") -> None:
    details = {"exception": exception, "message": told, "worker": worker}
    message.refusal = (reason, {name: text for name, text in details.items() if text})
