"""Publish, as a process of its own: `python -m tests.bench.publisher HOW '{"count": …}'`; prints JSON.

It speaks to the contender that the environment names (see `celery_app`).
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kombu_kafka
from tests.bench.celery_app import app, noop, pause
from tests.bench.marks import Marks

__all__ = ["HOW"]

#: Messages confirmed at once where the transport can do that.
BULK = 5000


def is_ours() -> bool:
    return str(app.conf.broker_url).startswith("kafka:")


def where(key: int | None) -> dict[str, Any]:
    """Publish options: a key where there are some and the transport knows them."""
    return {"partition_key": f"key-{key}"} if key is not None and is_ours() else {}


def bulk() -> Any:
    return kombu_kafka.bulk() if is_ours() else nullcontext()


def fill(count: int, seconds: float = 0.0, keys: int = 0, partitions: int = 0) -> dict[str, float]:
    """Publish tasks as fast as this contender can, so that a worker finds them waiting."""
    began, cpu = time.monotonic(), time.process_time()
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for start in range(0, count, BULK):
            with bulk():
                for number in range(start, min(start + BULK, count)):
                    options = where(number % keys if keys else None)
                    if partitions and is_ours():
                        options["partition"] = number % partitions
                    task, args = (pause, (number, seconds)) if seconds else (noop, (number,))
                    task.apply_async(args, producer=producer, **options)
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    return {"rate": count / took, "cpu": cpu / count * 1e6}


def one(count: int) -> dict[str, float]:
    """Publish tasks one at a time, each confirmed before the next."""
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for number in range(count // 10):
            noop.apply_async((number,), producer=producer)
        began, cpu = time.monotonic(), time.process_time()
        for number in range(count):
            noop.apply_async((number,), producer=producer)
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        return {"rate": count / took, "cpu": cpu / count * 1e6}


def in_bulk(count: int) -> dict[str, float]:
    """Publish tasks in bulk; then messages, prepared once, through kombu's producer alone."""
    fill(count // 10)
    figures = fill(count)
    return {**figures, "messages": messages(count)["rate"]}


def delayed(count: int, seconds: float) -> dict[str, float]:
    """Publish tasks that are due later."""
    due = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    return send(count, lambda id_, n: app.amqp.as_task_v2(id_, noop.name, (n,), {}, eta=due))


def messages(count: int) -> dict[str, float]:
    """Publish messages that Celery has nothing to do with any more."""
    message = app.amqp.as_task_v2("-", noop.name, (0,), {})
    return send(count, lambda id_, n: message)


def send(count: int, make: Callable[[str, int], Any]) -> dict[str, float]:
    """Publish messages through kombu's producer, in bulk where that can be."""
    began = time.monotonic()
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        queue = app.amqp.queues[app.conf.task_default_queue]
        for start in range(0, count, BULK):
            with bulk():
                for number in range(start, min(start + BULK, count)):
                    id_ = str(uuid.uuid4())
                    message = make(id_, number)
                    producer.publish(
                        message.body, headers=message.headers, serializer="json",
                        correlation_id=id_, exchange="", declare=[queue],
                        routing_key=queue.name,
                    )  # fmt: skip
    return {"rate": count / (time.monotonic() - began)}


def spaced(count: int, gap: float, sent: str) -> dict[str, float]:
    """Publish tasks with a pause after each, and mark when each was published."""
    marks = Marks(Path(sent))
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for number in range(count):
            marks.mark(number)
            noop.apply_async((number,), producer=producer)
            # Not in step with anybody's polling.
            time.sleep(gap * (0.5 + (number * 0.618) % 1.0))
    return {}


HOW: dict[str, Callable[..., dict[str, float]]] = {
    "fill": fill, "one": one, "bulk": in_bulk, "delayed": delayed, "spaced": spaced,
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(HOW[sys.argv[1]](**json.loads(sys.argv[2]))), flush=True)
    # Everything is confirmed: connections and their threads need no farewell.
    os._exit(0)
