"""The base of every task: it stays in its partition when retried and knows which record it came from."""

from __future__ import annotations

from typing import Any, NamedTuple

from celery import Task
from celery.utils.log import get_task_logger
from kafka.errors import KafkaError
from kombu.exceptions import OperationalError

from kombu_kafka.errors import KombuKafkaError

__all__ = ["HARD_ERRORS", "DeadLetterTask", "Origin"]

logger = get_task_logger(__name__)

#: Errors that no retry of the task will mend: Kafka can't be reached, or refuses.
HARD_ERRORS: tuple[type[Exception], ...] = (KafkaError, KombuKafkaError, OperationalError)


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
    """

    abstract = True

    Request = "scheduler.request:DeadLetterRequest"

    #: Retries serve passing errors only, also where a task says `autoretry_for=(Exception,)`.
    dont_autoretry_for = HARD_ERRORS

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
