"""How many tasks a publisher sends in bulk, all confirmed."""

from __future__ import annotations

from tests.bench.bench import Bench, Figures
from tests.bench.contenders import BARE, OURS, OURS_FAST, RABBITMQ
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOAD"]


def run(bench: Bench, contender: str) -> Figures:
    """Ours within `kombu_kafka.bulk()`; RabbitMQ one at a time, as it must."""
    if contender == RABBITMQ:
        with bench.run(contender, bench.sizes.publish) as run:
            return run.publish("one", count=bench.sizes.publish)
    count = bench.sizes.bulk
    with bench.run(OURS if contender in BARE else contender, count) as run:
        if contender in BARE:
            return bench.bare(contender, "bulk", run.queue, count)
        return run.publish("bulk", count=count)


WORKLOAD = Workload(
    name="publish-bulk",
    title="Publish in bulk, every one confirmed",
    about="`apply_async` within `kombu_kafka.bulk()`; and messages that Celery has prepared before, through"
    " kombu's `Producer` alone. RabbitMQ has no bulk confirmation in Celery:"
    " beside it stands its rate one at a time.",
    contenders=lambda _: (OURS, OURS_FAST, RABBITMQ, *BARE),
    figures=(
        Figure("rate", "tasks", "/s"),
        Figure("messages", "messages", "/s"),
        Figure("cpu", "the publisher's CPU for each", "µs", more=False),
    ),
    run=run,
)
