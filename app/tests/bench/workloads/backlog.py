"""What a long backlog costs: rate and memory while it is drained."""

from __future__ import annotations

import time

from tests.bench.bench import Bench, Figures
from tests.bench.contenders import OURS
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOAD"]


def run(bench: Bench, contender: str) -> Figures:
    """Drain the first tasks of a backlog; watch the worker's memory."""
    waiting = int(contender)
    drained = min(waiting, bench.sizes.drain)
    with bench.run(OURS, drained) as run:
        bench.load(run.queue, waiting)
        with run.worker() as worker:
            most = 0.0
            run.marks.wait(1, patience=60)
            deadline = time.monotonic() + 6 * bench.sizes.patience
            while run.marks.seen() < drained and time.monotonic() < deadline:
                most = max(most, worker.memory())
                time.sleep(0.1)
            began = [at for at in run.marks.began() if at]
            most = max(most, worker.memory())
        rate = (len(began) - 1) / (max(began) - min(began))
        return {"rate": rate, "memory": most, "lost": drained - len(began)}


WORKLOAD = Workload(
    name="backlog",
    title="Cost of a backlog",
    about="So many tasks wait; one solo worker drains the first of them. Memory is the worker's,"
    " at its highest.",
    contenders=lambda bench: tuple(map(str, bench.sizes.backlogs)),
    figures=(
        Figure("rate", "tasks", "/s"),
        Figure("memory", "memory", "MB", more=False),
        Figure("lost", "lost", "", more=False),
    ),
    run=run,
    axis="tasks waiting",
    repeats=1,
)
