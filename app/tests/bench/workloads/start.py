"""How long a worker takes from its start to its first task."""

from __future__ import annotations

from tests.bench.bench import Bench, BenchError, Figures
from tests.bench.contenders import CONFLUENT, OURS, RABBITMQ, REDIS
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOAD"]


def run(bench: Bench, contender: str) -> Figures:
    """A task waits; a worker is started as Celery does by default."""
    with bench.run(contender, 1) as run:
        run.publish("fill", count=1)
        with run.worker("prefork", 1, bare=False) as worker:
            if not run.marks.wait(1, patience=60):
                raise BenchError(f"no task ran:\n{run.log_tail()}")
            return {"seconds": run.marks.began()[0] - worker.began}


WORKLOAD = Workload(
    name="start",
    title="From a worker's start to its first task",
    about="A task waits; seconds from the start of `celery worker` (prefork, one child, Celery's"
    " defaults) to the task's first line.",
    contenders=lambda _: (OURS, RABBITMQ, REDIS, CONFLUENT),
    figures=(Figure("seconds", "first task", "s", more=False),),
    run=run,
)
