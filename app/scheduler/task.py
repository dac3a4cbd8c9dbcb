"""The base of every task: it stays in its partition when retried and knows which record it came from."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from celery import Task
from celery.utils.log import get_task_logger
from kafka.errors import KafkaError
from kombu.exceptions import OperationalError

from kombu_kafka.errors import KombuKafkaError

__all__ = [
    "HARD_ERRORS",
    "PASSING_ERRORS",
    "DeadLetterTask",
    "Origin",
    "WrongArgumentsError",
    "is_hard",
    "is_passing",
]

logger = get_task_logger(__name__)

#: Errors that no retry of the task will mend: Kafka can't be reached, or refuses.
HARD_ERRORS: tuple[type[Exception], ...] = (KafkaError, KombuKafkaError, OperationalError)

#: Errors that pass by themselves: somebody else's service is away or slow.
PASSING_ERRORS: tuple[type[BaseException], ...] = (ConnectionError, TimeoutError)

Classes = tuple[type[BaseException], ...]


class WrongArgumentsError(TypeError):
    """A task was sent arguments that its function does not take; no retry mends that."""


class Origin(NamedTuple):
    """The record that a running task came from."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"topic {self.topic}, partition {self.partition}, offset {self.offset}"


class DeadLetterTask(Task):
    """Base of the app's tasks.

    A task that fails for good goes whole to the dead letter topic. `scheduler.request` does that
    in the worker's main process, so that it also happens when the child is killed.

    A task says which of its errors pass and which don't:

    .. code-block:: python

        @app.task(autoretry_for=(ServiceBusyError,), max_retries=5, hard=(CardStolenError,))
        def charge(order, amount): ...

    Attributes:
        passing: Errors that pass by themselves, `autoretry_for`'s besides. Their letters say
            `dlq-kind: passing`, and `scheduler dlq watch` may replay them. Default: `PASSING_ERRORS`.
        hard: Errors that no retry will mend, `HARD_ERRORS` and wrong arguments besides: neither
            `autoretry_for` nor `self.retry` runs the task again, it becomes a dead letter at once.
            Their letters say `dlq-kind: hard`. Default: none more.
    """

    abstract = True

    Request = "scheduler.request:DeadLetterRequest"

    passing: Classes = PASSING_ERRORS
    hard: Classes = ()

    #: Retries serve passing errors only, also where a task says `autoretry_for=(Exception,)`.
    dont_autoretry_for: Classes = HARD_ERRORS

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Have what a task declares as hard left alone by `autoretry_for`."""
        super().__init_subclass__(**kwargs)
        cls.hard, cls.passing = tuple(cls.hard), tuple(cls.passing)
        cls.dont_autoretry_for = tuple({*cls.dont_autoretry_for, *HARD_ERRORS, *cls.hard})

    @property
    def origin(self) -> Origin | None:
        """The record this run came from; None where the task was called directly."""
        offset = self.request.get("kafka_offset")
        if offset is None:
            return None
        return Origin(self.request.kafka_topic, int(self.request.kafka_partition), int(offset))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; of a hard error record which record it stopped at, then fail with it."""
        if self.request.called_directly:
            return super().__call__(*args, **kwargs)
        self._check_arguments(args, kwargs)
        try:
            # Not super().__call__: that would push an empty request over the worker's.
            return self.run(*args, **kwargs)
        except HARD_ERRORS as exc:
            logger.error(
                "Task %s[%s] met a hard error at %s, it goes to the dead letter topic: %s: %s",
                self.name,
                self.request.id,
                self.origin or "no record",
                type(exc).__name__,
                exc,
            )
            raise

    def retry(
        self, args: Any = None, kwargs: Any = None, exc: BaseException | None = None, **rest: Any
    ) -> Any:
        """Retry the task; for a hard error, fail with it at once instead."""
        cause = exc if isinstance(exc, BaseException) else sys.exc_info()[1]
        if cause is not None and is_hard(self, cause):
            raise cause
        return super().retry(args, kwargs, exc, **rest)

    def _check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise `WrongArgumentsError` unless the task's function takes these arguments."""
        check = getattr(self, "__header__", None)
        if check is None or not self.typing:
            return
        try:
            check(*args, **kwargs)
        except TypeError as exc:
            raise WrongArgumentsError(str(exc)) from None

    def signature_from_request(
        self,
        request: Any = None,
        args: Any = None,
        kwargs: Any = None,
        queue: str | None = None,
        **extra_options: Any,
    ) -> Any:
        """Build the retry: the same key, and the same partition.

        The partition too, because not every producer places a key as this one does (librdkafka's
        default is another hash), and a retry must not end up under another worker.
        """
        request = self.request if request is None else request
        if "partition_key" not in extra_options and "partition" not in extra_options:
            key, partition = request.get("kafka_key"), request.get("kafka_partition")
            if key is not None:
                extra_options["partition_key"] = key
            if partition is not None and queue in (None, request.get("kafka_topic")):
                extra_options["partition"] = int(partition)
        return super().signature_from_request(request, args, kwargs, queue=queue, **extra_options)


def is_hard(task: Any, exc: BaseException) -> bool:
    """Whether no retry of `task` will mend `exc`."""
    declared: Classes = getattr(task, "hard", ())
    return isinstance(exc, (*HARD_ERRORS, WrongArgumentsError, *declared))


def is_passing(task: Any, exc: BaseException) -> bool:
    """Whether `exc` passes by itself, by what `task` says of it."""
    retried = getattr(task, "autoretry_for", ())
    # Whoever retries on everything has not said that everything passes.
    said = [one for one in retried if one not in (Exception, BaseException)]
    declared: Classes = getattr(task, "passing", PASSING_ERRORS)
    return not is_hard(task, exc) and isinstance(exc, (*declared, *said))
