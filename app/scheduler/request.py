"""The worker's side of a task: a record is done with only once its task succeeded or lies dead-lettered.

All of this runs in the worker's main process, which outlives a child that was killed, ran out of
memory or exceeded its time limit. Where Celery acknowledges (5.7):

- success: `on_success`; a retry: `on_retry`, after the retry was published; `Ignore`, an expired
  or revoked task: `acknowledge` directly. These stay plain acknowledgements.
- the task raised: the child reports it, `on_success` calls `on_failure`, which acknowledges.
- the hard time limit: billiard calls `on_failure` and then `on_timeout`; the first acknowledges.
- the child died: `on_failure` with `WorkerLostError`.
- the whole worker died: nobody saw it; `revoked` finds the transport's count (kombu_kafka.consuming.attempts).

In the last three `_failure` is set while Celery's own handler runs, and what would acknowledge
dead-letters instead.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import (
    Ignore,
    InvalidTaskError,
    Reject,
    Retry,
    TaskRevokedError,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.utils.log import get_logger
from celery.utils.serialization import UnpickleableExceptionWrapper
from celery.worker import state
from celery.worker.request import Request
from kombu.asynchronous import get_event_loop
from kombu.utils.compat import detect_environment

from kombu_kafka.wording import counted
from scheduler.task import WrongArgumentsError, is_hard, is_passing
from scheduler.task_body import fault

__all__ = ["DeadLetterRequest", "Failure"]

logger = get_logger(__name__)

#: Kafka refuses large records, and a traceback's end says most.
MAX_TRACEBACK = 8000
MAX_MESSAGE = 1000


@dataclass(frozen=True)
class Failure:
    """Why a task will not run again.

    Attributes:
        reason: One word for programs: `exception`, `arguments`, `rejected`, `time-limit`,
            `worker-lost`, `delivery-limit`.
        exception: Name of the exception's class.
        message: What the exception says.
        traceback: Where it was raised, if the child could tell.
        kind: `passing` or `hard`, as the task declares it; else empty.
    """

    reason: str
    exception: str
    message: str
    traceback: str = ""
    kind: str = ""

    def headers(self, worker: str, attempts: int) -> dict[str, str]:
        """What the dead letter tells besides the record itself; the transport adds the prefix."""
        told = {
            "exception": self.exception,
            "message": self.message[:MAX_MESSAGE],
            "traceback": self.traceback[-MAX_TRACEBACK:],
            "kind": self.kind,
            "worker": worker,
            "attempts": str(attempts),
        }
        return {name: text for name, text in told.items() if text}


class DeadLetterRequest(Request):
    """A request whose final failure dead-letters its record before anything is acknowledged."""

    acknowledged: bool
    _failure: Failure | None = None
    _gave_up = False

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        body = kwargs.get("body")
        sentence = fault(body if kwargs.get("decoded") else message.payload)
        if sentence is not None:
            raise InvalidTaskError(sentence)
        super().__init__(message, *args, **kwargs)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """The task raised, its child died, or its time was up."""
        exc = _exception(exc_info)
        if _lost(exc) and (state.should_terminate or self._already_cancelled):
            state.task_ready(self)  # we killed it ourselves: unacknowledged, it comes again
            return None
        self._failure = _final(exc, exc_info, self.task)
        try:
            if isinstance(exc, MemoryError):
                # Celery would raise it again, in the main process, and never acknowledge.
                state.task_ready(self)
                self.acknowledge()
                return self._record_failure(exc, exc_info)
            result = super().on_failure(exc_info, send_failed_event, return_ok)
            if self._gave_up:
                self._record_failure(exc, exc_info)
            return result
        finally:
            # Also if the result backend could not be reached: or the partition would stand still.
            self._settle()

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The soft or the hard time limit was exceeded."""
        if soft:
            super().on_timeout(soft, timeout)
            return
        if state.should_terminate:
            state.task_ready(self)  # stopping in haste: it stays unacknowledged and runs again
            return
        self._failure = Failure(
            "time-limit", "TimeLimitExceeded", f"The task ran longer than {timeout} seconds."
        )
        try:
            super().on_timeout(soft, timeout)
        finally:
            self._settle()

    def acknowledge(self) -> None:
        """Acknowledge the record, or dead-letter it if its task failed for good."""
        if self._failure is None:
            super().acknowledge()
        else:
            self._dead_letter(self._failure)

    def reject(self, requeue: bool = False) -> None:
        """Give the record back, or (without `requeue`, or too often) dead-letter it."""
        if self.acknowledged:
            return
        if requeue and not self._too_often():
            super().reject(requeue=True)
            return
        self._dead_letter(self._failure or Failure("rejected", "Reject", ""))
        self.send_event("task-rejected", requeue=False)

    def _too_often(self) -> bool:
        """Count a record that is given back because of a failure, and say when it is enough.

        What the task itself gives back (`Reject(requeue=True)`) is not counted: it means to wait.
        """
        if self._failure is None:
            return False
        channel = self.message.channel
        attempts = channel.attempt_failed(self.message.delivery_tag)
        self._gave_up = attempts >= channel.delivery_limit
        if not self._gave_up:
            logger.warning(
                "Task %s[%s] (%s) runs again: delivery %d of %d.",
                self.name,
                self.id,
                self._failure.reason,
                attempts + 1,
                channel.delivery_limit,
            )
        return self._gave_up

    def revoked(self) -> bool:
        """Say whether the task must not run; Celery asks just before it gives it to the pool.

        So this is where a task is given back that waited while its worker lost its partition, and
        where a record ends that took its whole worker down too often: nobody was
        left then to do what `on_failure` does.
        """
        if super().revoked():
            return True
        if self._is_anothers():
            return True
        attempts = self._attempt - 1
        if not attempts or attempts < self.message.channel.delivery_limit:
            return False
        self._give_up(attempts)
        return True

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A pool begins, and says so first: one that works in this process can still be stopped.

        Threads and greenlets have a queue of their own, so what waited there was asked about by
        `revoked` long ago. What a child says is too late to be stopped.
        """
        green = detect_environment() != "default"  # then `pid` names a greenlet
        if (green or pid == os.getpid()) and self._is_anothers():
            raise _unbegun(green)(self.id)
        super().on_accepted(pid, time_accepted)

    def _is_anothers(self) -> bool:
        """Give a record back, unbegun, where this worker can't be sure to be its owner any more."""
        message = self.message
        may_begin = getattr(message.channel, "may_begin", None)  # None: another transport's
        if self.acknowledged or may_begin is None or may_begin(message.delivery_tag):
            return False
        logger.info(
            "Task %s[%s] is not begun: nothing was heard of this worker for a while, and its partition "
            "may be another's.", self.name, self.id,
        )  # fmt: skip
        state.task_ready(self)
        super().reject(requeue=True)
        return True

    def _give_up(self, attempts: int) -> None:
        try:
            raise WorkerLostError(
                f"The worker died {counted(attempts, 'time')} while this task ran."
            )
        except WorkerLostError as exc:
            failure = Failure("delivery-limit", type(exc).__name__, str(exc))
            state.task_ready(self)
            try:
                self._record_failure(exc, ExceptionInfo())
            finally:
                self._dead_letter(failure)

    def _retry_worker_lost(self, exc: Any, exc_info: Any) -> bool:
        """Publish a retry (`retry_on_worker_lost`); what it acknowledges is no final failure."""
        failure, self._failure = self._failure, None
        retried = bool(super()._retry_worker_lost(exc, exc_info))
        if not retried:
            self._failure = failure
        return retried

    def _success_was_stored(self) -> Any:
        """The child died after its task had succeeded: then there was no failure."""
        stored = super()._success_was_stored()
        if stored:
            self._failure = None
        return stored

    @property
    def _attempt(self) -> int:
        """Number of this attempt; above 1 where earlier ones took their process down."""
        return int(self.message.headers.get("kafka_attempt") or 1)

    @property
    def _record(self) -> tuple[Any, Any, Any]:
        info = self.message.delivery_info
        return info.get("topic"), info.get("partition"), info.get("offset")

    def _record_failure(self, exc: BaseException, exc_info: Any) -> None:
        """Store and announce a failure where Celery's own handler did not."""
        self.task.backend.mark_as_failure(
            self.id, exc, request=self._context, store_result=self.store_errors
        )
        self.send_event("task-failed", exception=repr(exc), traceback=str(exc_info.traceback))

    def _settle(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None and not self.acknowledged and self.task.acks_late:
            self._dead_letter(failure)

    def _dead_letter(self, failure: Failure) -> None:
        """Hand the record to the transport, which acknowledges it once its dead letter is safe."""
        if self.acknowledged:
            return
        self.acknowledged = True
        attempts = self._attempts()
        hub = get_event_loop()
        if hub is None:
            self._send_dead_letter(failure, attempts)
        else:  # as Celery does with acknowledgements: pools call back from threads of their own
            hub.call_soon(self._send_dead_letter, failure, attempts)

    def _attempts(self) -> int:
        """How often the task was begun: its retries, and its deliveries that took a child down."""
        retries = self._request_dict.get("retries")
        begun: int = min(self._attempt, self.message.channel.delivery_limit)
        return (retries if isinstance(retries, int) else 0) + begun

    def _send_dead_letter(self, failure: Failure, attempts: int) -> None:
        message = self.message
        logger.error(
            "Task %s[%s] from topic %s, partition %s, offset %s becomes a dead letter (%s): %s: %s",
            self.name,
            self.id,
            *self._record,
            failure.reason,
            failure.exception,
            failure.message,
        )
        try:
            message.channel.dead_letter(
                message.delivery_tag,
                reason=failure.reason,
                headers=failure.headers(self.hostname, attempts),
            )
        except self.connection_errors as exc:
            # As with an acknowledgement: the record comes again on the next connection.
            logger.critical("Task %s[%s] could not be dead-lettered: %r", self.name, self.id, exc)
        else:
            message._state = "REJECTED"


def _unbegun(green: bool) -> type[BaseException]:
    """Return what a pool takes for an end without a word, raised where it begins a task."""
    end: type[BaseException] = sys.modules["greenlet"].GreenletExit if green else TaskRevokedError
    return end


def _exception(exc_info: Any) -> BaseException:
    exc = exc_info.exception
    if isinstance(exc, ExceptionWithTraceback):
        exc = exc.exc
    return exc  # type: ignore[no-any-return]


def _text(value: object) -> str:
    """What `value` says; an exception's own __str__ may raise, and its record must be settled."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001
        return f"(a {type(value).__name__} that can't be shown)"


def _lost(exc: BaseException) -> bool:
    """Say whether the child is gone: billiard reports some exits as what ended the process."""
    return isinstance(exc, (WorkerLostError, SystemExit, KeyboardInterrupt))


def _final(exc: BaseException, exc_info: Any, task: Any) -> Failure | None:
    """Say why the task will not run again; None if it will, or if it was not meant to."""
    message = _text(exc)
    name = type(exc).__name__
    if isinstance(exc, UnpickleableExceptionWrapper):
        name = str(exc.exc_cls_name)
    kind = "hard" if is_hard(task, exc) else "passing" if is_passing(task, exc) else ""
    if isinstance(exc, Reject):
        if exc.requeue:
            return None
        reason, message = "rejected", _text(exc.reason or "")
    elif isinstance(exc, (Ignore, Retry, Terminated)):
        return None
    elif _lost(exc):
        reason = "worker-lost"
    elif isinstance(exc, TimeLimitExceeded):
        reason, message = "time-limit", f"The task ran longer than {exc.args[0]} seconds."
    elif isinstance(exc, WrongArgumentsError):
        reason = "arguments"
    else:
        reason = "exception"
    return Failure(reason, name, message, str(exc_info.traceback or ""), kind)
