"""What many partitions cost a worker."""

from __future__ import annotations

from tests.bench.bench import Bench, Figures
from tests.bench.contenders import OURS
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOAD"]


def run(bench: Bench, contender: str) -> Figures:
    """Drain the same number of tasks, spread over so many partitions."""
    tasks, partitions = bench.sizes.drain, int(contender)
    with bench.run(OURS, tasks, partitions=partitions) as run:
        run.publish("fill", count=tasks, partitions=partitions)
        with run.worker():
            return run.finish()


WORKLOAD = Workload(
    name="partitions",
    title="Cost of partitions",
    about="One solo worker drains the same tasks, spread evenly over 1, 10 and 100 partitions.",
    contenders=lambda bench: tuple(map(str, bench.sizes.partitions)),
    figures=(Figure("rate", "tasks", "/s"), Figure("lost", "lost", "", more=False)),
    run=run,
    axis="partitions",
    repeats=2,
)
