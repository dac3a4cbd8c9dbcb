"""What order by key costs, and what it gains over the order of the partition."""

from __future__ import annotations

from tests.bench.bench import Bench, Figures
from tests.bench.contenders import OURS
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOAD"]

THREADS, KEYS, SECONDS = 100, 20, 0.01


def run(bench: Bench, contender: str) -> Figures:
    """One partition, tasks of 10 ms, keys in turn."""
    tasks = bench.sizes.keys // (10 if contender == "partition" else 1)
    with bench.run(OURS, tasks, ordering=contender) as run:
        run.publish("fill", count=tasks, seconds=SECONDS, keys=KEYS)
        with run.worker("threads", THREADS, settings={"worker_prefetch_multiplier": 0}):
            return run.finish()


WORKLOAD = Workload(
    name="keys",
    title=f"Order by key: one partition, {THREADS} threads, {KEYS} keys, tasks of 10 ms",
    about="The same tasks under the three orders. Twenty keys of 10 ms allow 2,000 a second.",
    contenders=lambda _: ("key", "none", "partition"),
    figures=(
        Figure("rate", "tasks", "/s"),
        Figure("lost", "lost", "", more=False),
        Figure("again", "again", "", more=False),
    ),
    run=run,
)
