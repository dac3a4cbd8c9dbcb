"""How work that waits scales with workers."""

from __future__ import annotations

from contextlib import ExitStack

from tests.bench.bench import Bench, Figures
from tests.bench.contenders import OURS
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOAD"]

SECONDS = 0.1


def run(bench: Bench, contender: str) -> Figures:
    """Workers of one thread bound to a partition each, tasks of 0.1 s, as many for each worker."""
    workers = int(contender)
    tasks = bench.sizes.waiting * workers
    with bench.run(OURS, tasks + workers, partitions=workers) as run, ExitStack() as stack:
        # All begin at once: the first task of each is there before any worker, the rest after.
        for number in range(workers):
            stack.enter_context(run.worker(partitions=[number]))
        run.publish("fill", count=workers, partitions=workers)
        run.marks.wait(workers, patience=60 + 3 * workers)
        run.marks.clear()
        run.publish("fill", count=tasks, seconds=SECONDS, partitions=workers)
        figures = run.finish(tasks)
        return {**figures, "efficiency": figures["rate"] * SECONDS / workers * 100}


WORKLOAD = Workload(
    name="workers",
    title="Workers with tasks that wait",
    about="Solo workers bound to a partition each, tasks of 0.1 s. Efficiency is the part of the"
    " ideal (ten a second for each worker).",
    contenders=lambda bench: tuple(map(str, bench.sizes.workers)),
    figures=(
        Figure("rate", "tasks", "/s"),
        Figure("efficiency", "efficiency", "%"),
        Figure("lost", "lost", "", more=False),
    ),
    run=run,
    axis="workers",
    repeats=1,
)
