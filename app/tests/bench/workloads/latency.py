"""How long a task takes from its publisher to its first line, with nothing else to do."""

from __future__ import annotations

from statistics import median, quantiles

from tests.bench.bench import Bench, BenchError, Figures
from tests.bench.contenders import BARE, CONFLUENT, OURS, OURS_FAST, RABBITMQ, REDIS
from tests.bench.marks import Marks
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOAD"]

#: Seconds between two tasks, on average.
GAP = 0.03


def run(bench: Bench, contender: str) -> Figures:
    """Time each task from before `apply_async` to its first line."""
    count = bench.sizes.latency
    with bench.run(OURS if contender in BARE else contender, count) as run:
        if contender in BARE:
            return bench.bare(contender, "spaced", run.queue, count, gap=GAP)
        sent = Marks(run.directory / "sent", count)
        with run.worker():
            # What a worker does while it starts is not what is measured here.
            run.publish("spaced", count=min(20, count), gap=GAP, sent=str(sent.path))
            run.marks.wait(1, patience=60)
            run.marks.wait(min(20, count), patience=bench.sizes.patience)
            run.marks.clear()
            sent.clear()
            run.publish("spaced", count=count, gap=GAP, sent=str(sent.path))
            seen = run.marks.wait(patience=bench.sizes.patience)
        pairs = zip(sent.began(), run.marks.began(), strict=True)
        took = [(began - left) * 1000 for left, began in pairs if left and began]
        sent.close()
    if len(took) < 2:
        raise BenchError(f"no task ran:\n{run.log_tail()}")
    return {
        "p50": median(took),
        "p99": quantiles(took, n=100, method="inclusive")[98],
        "lost": count - seen,
    }


WORKLOAD = Workload(
    name="latency",
    title="From publish to start, on an idle system",
    about=f"A task about every {GAP * 1000:.0f} ms to an idle solo worker: milliseconds from before"
    " `apply_async` to the task's first line. For the bare clients: from before a record is published to"
    " when a thread of the same process has it.",
    contenders=lambda _: (OURS, OURS_FAST, RABBITMQ, REDIS, CONFLUENT, *BARE),
    figures=(
        Figure("p50", "p50", "ms", more=False),
        Figure("p99", "p99", "ms", more=False),
        Figure("lost", "lost", "", more=False),
    ),
    run=run,
)
