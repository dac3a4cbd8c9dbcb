"""The names that danihodovic/celery-exporter's dashboards and alerts use, from the same events."""

from __future__ import annotations

import threading
from collections.abc import Callable

from celery.utils import nodesplit

from scheduler.exporter.events import EventState, TaskEvent
from scheduler.exporter.families import Families
from scheduler.metrics import COMPAT

__all__ = ["CompatMetrics"]

_KINDS = ("sent", "received", "started", "succeeded", "failed", "rejected", "revoked", "retried")


class CompatMetrics:
    """That exporter's metrics; `observe` is to be an observer of the events.

    Arguments:
        queue: the workers' queue.
        overflowed: called with a metric's name when it has its full number of series.
    """

    def __init__(self, queue: str, overflowed: Callable[[str], object] = lambda name: None) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._families = Families(COMPAT.values(), overflowed)

    def observe(self, event: TaskEvent) -> None:
        """Count a task event."""
        labels = [event.task, _host(event.worker), event.queue]
        with self._lock:
            for kind in _KINDS:
                happened = event.kind == f"task-{kind}"
                # There a task's other counters appear with 0, but for those of producers: without
                # failures too, a ratio of them is drawn.
                if happened or event.kind != "task-sent":
                    key = [*labels[:2], event.exception, labels[2]] if kind == "failed" else labels
                    self._families[f"celery_task_{kind}_total"].inc(*key, by=int(happened))
            if event.kind == "task-succeeded":
                self._families.observe("celery_task_runtime", event.runtime, *labels)

    def lines(self, events: EventState, owned: int) -> list[str]:
        """Write everything.

        Arguments:
            events: what is known of the workers.
            owned: how many partitions of the queue have an owner.
        """
        workers, active = events.workers(), events.active()
        ups: dict[str, bool] = {}
        running: dict[str, float] = {}
        for name, up in workers.items():
            host = _host(name)
            ups[host] = ups.get(host, False) or up
            running[host] = running.get(host, 0) + active.get(name, 0)
        with self._lock:
            family = self._families["celery_worker_tasks_active"]
            family.clear()
            for host, count in running.items():
                family.set(count, host)
            self._families["celery_active_worker_count"].set(sum(workers.values()), self._queue)
            self._families["celery_active_process_count"].set(events.pool_size(), self._queue)
            self._families["celery_active_consumer_count"].set(owned, self._queue)
            return list(self._families.lines())


def _host(worker: str) -> str:
    """Return what that exporter calls a worker: its host.

    >>> _host("worker-0@kafka1")
    'kafka1'
    """
    return str(nodesplit(worker)[1])
