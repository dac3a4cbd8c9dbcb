"""What a hundred thousand tasks that are due in an hour add to a worker."""

from __future__ import annotations

import time

from tests.bench.bench import Bench, Figures, Worker
from tests.bench.contenders import OURS, RABBITMQ, REDIS
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOAD"]

#: Seconds of no growth after which a worker has all that it will take.
CALM = 4.0


def run(bench: Bench, contender: str) -> Figures:
    """Memory of a worker before and after."""
    count = bench.sizes.delayed // (1 if contender == OURS else 5)
    with bench.run(contender, 2) as run, run.worker(bare=False) as worker:
        run.publish("fill", count=1)
        run.marks.wait(1, patience=60)
        before = _settled(worker, bench.sizes.patience)
        run.publish("delayed", count=count, seconds=3600.0)
        after = _settled(worker, 15 * bench.sizes.patience)
        added = after - before
        return {"added": added, "tasks": count, "each": added / count * 1e6, "before": before}


def _settled(worker: Worker, limit: float) -> float:
    """Wait until the memory grows no more; return it."""
    deadline = time.monotonic() + limit
    most, since = worker.memory(), time.monotonic()
    while time.monotonic() - since < CALM and time.monotonic() < deadline:
        time.sleep(0.2)
        if (now := worker.memory()) > most + 0.1:
            most, since = now, time.monotonic()
    return most


WORKLOAD = Workload(
    name="delayed",
    title="Tasks due in an hour, in a worker's memory",
    about="An idle worker, then tasks with an ETA in an hour: resident memory that they add. The others"
    " get a fifth of the tasks, because their workers take in each of them.",
    contenders=lambda _: (OURS, RABBITMQ, REDIS),
    figures=(
        Figure("each", "for each task", "bytes", more=False),
        Figure("added", "added", "MB", more=False),
        Figure("tasks", "by tasks", "", more=None),
        Figure("before", "before", "MB", more=None),
    ),
    run=run,
    repeats=1,
)
