"""The tasks of `scheduler smoke`: real work that leaves a receipt in Kafka for each of its runs."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass

from celery import Task, shared_task

from kombu_kafka.publishing import producer
from scheduler.broker import broker_options

__all__ = ["RECEIPTS_TOPIC", "Receipt", "advance"]

#: Where the receipts go.
RECEIPTS_TOPIC = "celery_smoke"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """One run of one task.

    Attributes:
        run: The run of `scheduler smoke` that sent the task.
        sequence: The task's number among those of its partition, from 0.
        task_id: Celery's id of the task.
        partition: The partition it was consumed from.
        offset: Its offset there.
        host: The host it ran on.
        unit: The systemd unit (or the worker's name) it ran in.
        started: When it began, in seconds since the epoch.
        finished: When its work was done.
    """

    run: str
    sequence: int
    task_id: str
    partition: int
    offset: int
    host: str
    unit: str
    started: float
    finished: float

    @classmethod
    def from_json(cls, value: bytes) -> Receipt:
        """Read a receipt; ValueError or TypeError if it is none."""
        return cls(**json.loads(value))


@shared_task(bind=True, name="scheduler.smoke.advance")
def advance(self: Task, run: str, sequence: int, order: str, step: str) -> str:
    """Take an order one step further, and say so.

    The order's state is not kept: a file of this host would stay behind when the partition's worker
    moves to another. That the steps ran in order is for the receipts to prove.
    """
    started = time.time()
    receipt = Receipt(
        run=run,
        sequence=sequence,
        task_id=self.request.id,
        partition=self.request.kafka_partition,
        offset=self.request.kafka_offset,
        host=socket.gethostname(),
        unit=os.environ.get("CELERY_UNIT") or self.request.hostname,
        started=started,
        finished=time.time(),
    )
    # The key keeps the receipts of a partition in one partition, in the order of the runs.
    producer.shared(broker_options(self.app)).publish(
        RECEIPTS_TOPIC,
        json.dumps(asdict(receipt)).encode(),
        key=f"{self.request.kafka_topic}-{receipt.partition}".encode(),
    )
    return f"{run}-{order}: {step}"
