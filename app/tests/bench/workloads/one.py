"""How many tasks a publisher sends, one confirmed at a time."""

from __future__ import annotations

from tests.bench.bench import Bench, Figures
from tests.bench.contenders import BARE, CONFLUENT, OURS, OURS_FAST, RABBITMQ, REDIS
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOAD"]


def run(bench: Bench, contender: str) -> Figures:
    """`apply_async` in a loop; the bare clients send a record as large and wait for it."""
    count = bench.sizes.publish
    if contender in BARE:
        with bench.run(OURS, 1) as run:
            return bench.bare(contender, "one", run.queue, count)
    with bench.run(contender, count) as run:
        return run.publish("one", count=count)


WORKLOAD = Workload(
    name="publish-one",
    title="Publish, one confirmed at a time",
    about="`apply_async` in a loop, each confirmed before the next: `acks=all`, RabbitMQ's"
    " `confirm_publish`, Redis's answer.",
    contenders=lambda _: (OURS, OURS_FAST, RABBITMQ, REDIS, CONFLUENT, *BARE),
    figures=(
        Figure("rate", "messages", "/s"),
        Figure("cpu", "the publisher's CPU for each", "µs", more=False),
    ),
    run=run,
)
