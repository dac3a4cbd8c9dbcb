"""What is measured, a module each."""

from __future__ import annotations

from tests.bench.workloads import (
    backlog,
    bulk,
    delayed,
    drain,
    exporter,
    idle,
    keys,
    latency,
    one,
    partitions,
    start,
    workers,
)
from tests.bench.workloads.base import Workload

__all__ = ["WORKLOADS"]

#: In the order of the page.
WORKLOADS: tuple[Workload, ...] = (
    *drain.WORKLOADS,
    one.WORKLOAD,
    bulk.WORKLOAD,
    latency.WORKLOAD,
    keys.WORKLOAD,
    delayed.WORKLOAD,
    idle.WORKLOAD,
    start.WORKLOAD,
    partitions.WORKLOAD,
    backlog.WORKLOAD,
    workers.WORKLOAD,
    exporter.WORKLOAD,
)
