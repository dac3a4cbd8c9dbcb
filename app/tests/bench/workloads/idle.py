"""What an idle worker costs."""

from __future__ import annotations

import time

from tests.bench.bench import Bench, Figures
from tests.bench.contenders import CONFLUENT, OURS, RABBITMQ, REDIS
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOAD"]


def run(bench: Bench, contender: str) -> Figures:
    """CPU of a worker that has run one task and waits for the next."""
    with bench.run(contender, 1) as run, run.worker("prefork", 1, bare=False) as worker:
        run.publish("fill", count=1)
        run.marks.wait(1, patience=60)
        # Some of what a worker does in case something follows soon, it does for 20 seconds.
        time.sleep(min(25.0, 2 * bench.sizes.idle + 1))
        before, began = worker.cpu(), time.monotonic()
        time.sleep(bench.sizes.idle)
        share = (worker.cpu() - before) / (time.monotonic() - began)
        return {"cpu": share * 100, "memory": worker.memory()}


WORKLOAD = Workload(
    name="idle",
    title="An idle worker",
    about="A prefork worker as Celery starts it by default, nothing to do: CPU of its main process.",
    contenders=lambda _: (OURS, RABBITMQ, REDIS, CONFLUENT),
    figures=(
        Figure("cpu", "of a core", "%", more=False),
        Figure("memory", "memory", "MB", more=False),
    ),
    run=run,
    repeats=1,
)
