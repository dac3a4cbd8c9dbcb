"""How fast one worker drains tasks that do nothing."""

from __future__ import annotations

from tests.bench.bench import Bench, Figures
from tests.bench.contenders import BARE, CONFLUENT, OURS, RABBITMQ, REDIS
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOADS"]


def _drain(pool: str, concurrency: int, *, bounds: bool) -> Workload:
    def run(bench: Bench, contender: str) -> Figures:
        tasks = bench.sizes.drain
        name = OURS if contender in BARE else contender
        with bench.run(name, tasks) as run:
            run.publish("fill", count=tasks)
            if contender in BARE:
                return bench.bare(contender, "read", run.queue, tasks)
            with run.worker(pool, concurrency) as worker:
                figures = run.finish()
                return {**figures, "cpu": worker.cpu()}

    names = (OURS, RABBITMQ, REDIS, CONFLUENT)
    title = f"{pool} with {concurrency}" if concurrency > 1 else f"one {pool} worker"
    return Workload(
        name=f"drain-{pool}",
        title=f"Drain, {title}",
        about="No-op tasks wait; a worker with `task_acks_late` takes them. The rate runs from the"
        " first task's start to the last's; `lost` are those that never began, `again` those that"
        " ran more than once." + (" The bare clients only read the records." if bounds else ""),
        contenders=lambda _: (*names, *BARE) if bounds else names,
        figures=(
            Figure("rate", "tasks", "/s"),
            Figure("cpu", "CPU of the main process, with its start", "s", more=False),
            Figure("lost", "lost", "", more=False),
            Figure("again", "again", "", more=False),
        ),
        run=run,
    )


WORKLOADS = (
    _drain("solo", 1, bounds=True),
    _drain("prefork", 2, bounds=False),
    _drain("threads", 4, bounds=False),
)
