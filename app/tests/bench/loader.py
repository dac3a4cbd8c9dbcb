"""Fill a topic with no-op tasks past Celery: `python -m tests.bench.loader '{"bootstrap": …, "topic": …}' COUNT`.

A million of them through `apply_async` would take longer than all the rest of the bench.
"""

from __future__ import annotations

import json
import os
import sys
import uuid

from confluent_kafka import Producer

from kombu_kafka.record import encode_headers
from tests.bench.celery_app import app, noop

__all__: list[str] = []


def main(bootstrap: str, topic: str, count: int) -> None:
    """Write them to partition 0 and wait for the confirmation of all."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 200_000}
    )
    message = app.amqp.as_task_v2("-", noop.name, (0,), {})
    for number in range(count):
        id_ = str(uuid.UUID(int=number))
        headers = {**message.headers, "id": id_, "root_id": id_}
        properties = {"correlation_id": id_, "delivery_mode": 2}
        record = encode_headers(headers, properties, "application/json", "utf-8")
        body = json.dumps([[number], *message.body[1:]]).encode()
        while True:
            try:
                producer.produce(topic, body, headers=list(record), partition=0)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 1000 == 0:
            producer.poll(0)
    if producer.flush(120):
        raise SystemExit("not everything was written")
    print("{}", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]), count=int(sys.argv[2]))
