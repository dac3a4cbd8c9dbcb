"""Celery's events as metrics: what is known of tasks and workers, bounded and forgotten in time."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.exporter.families import Families
from scheduler.metrics import EXPORTER

__all__ = ["EventState", "TaskEvent"]

#: Tasks remembered by their ids, for their names and times: events say each only once.
MAX_TASKS = 50_000
#: Workers that are followed.
MAX_WORKERS = 1000
#: Seconds without a heartbeat after which a worker counts as gone.
SILENCE_SECONDS = 30.0

UNKNOWN = "unknown"

#: Where each kind of event is counted.
_COUNTERS = {
    "task-received": "celery_worker_tasks_received_total",
    "task-started": "celery_worker_tasks_started_total",
    "task-succeeded": "celery_worker_tasks_succeeded_total",
    "task-retried": "celery_worker_tasks_retried_total",
    "task-revoked": "celery_worker_tasks_revoked_total",
    "task-rejected": "celery_worker_tasks_rejected_total",
}
_ENDS = ("task-succeeded", "task-failed", "task-revoked", "task-rejected")
#: The class in front of an exception's repr.
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?=\(|$)")


@dataclass
class _Task:
    name: str = UNKNOWN
    queue: str = UNKNOWN
    sent: float | None = None
    received: float | None = None


@dataclass
class _Worker:
    seen: float
    online: bool = True


@dataclass(frozen=True)
class TaskEvent:
    """What an event says, with what earlier ones said of the same task.

    Attributes:
        kind: the event's type.
        task: the task's name.
        worker: who sent the event.
        queue: where the task was queued.
        exception: class of the exception, of a failure.
        runtime: seconds it ran, of a success.
    """

    kind: str
    task: str
    worker: str
    queue: str
    exception: str = ""
    runtime: float = 0.0


class EventState:
    """Takes events, in any order and however damaged; thread-safe.

    Arguments:
        queue: queue of tasks whose events don't name theirs.
        expire: seconds for which a worker that is gone is shown.
        observers: called with each task event that was understood.
        clock: the time now, in seconds, never going back.
    """

    def __init__(
        self,
        queue: str = UNKNOWN,
        expire: float = 600.0,
        observers: Iterable[Callable[[TaskEvent], object]] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._expire = expire
        self._observers = tuple(observers)
        self._clock = clock
        self._lock = threading.Lock()
        self._tasks: OrderedDict[str, _Task] = OrderedDict()
        self._workers: OrderedDict[str, _Worker] = OrderedDict()
        own = [
            metric
            for name, metric in EXPORTER.items()
            if name.startswith(("celery_task", "celery_worker"))
            or name in ("celery_exporter_events_total", "celery_exporter_malformed_events_total")
        ]
        self._overflow = Families([EXPORTER["celery_exporter_series_overflow_total"]])
        self._families = Families(own, self.overflowed)
        self._families["celery_exporter_malformed_events_total"].inc(by=0)

    def overflowed(self, metric: str) -> None:
        """Count a sample that went to `other`."""
        self._overflow["celery_exporter_series_overflow_total"].inc(metric)

    def handle(self, event: Mapping[str, Any]) -> None:
        """Take an event; one that is none is counted, and nothing else."""
        with self._lock:
            try:
                kind = event["type"]
                if kind.startswith("worker-"):
                    self._worker_event(kind, event)
                elif kind == "task-sent" or kind == "task-failed" or kind in _COUNTERS:
                    self._task_event(kind, event)
                else:
                    kind = "other"
                self._families["celery_exporter_events_total"].inc(kind)
            except (KeyError, TypeError, ValueError, AttributeError):
                self._families["celery_exporter_malformed_events_total"].inc()

    def pool_sizes(self, sizes: Mapping[str, int]) -> None:
        """Take the workers' answers about their pools."""
        with self._lock:
            for worker, size in sizes.items():
                if worker in self._workers:
                    self._families["celery_worker_pool_size"].set(size, worker)

    def unsized(self) -> set[str]:
        """Return the workers that are up and of whose pools nothing is known."""
        with self._lock:
            family = self._families["celery_worker_pool_size"]
            return {
                name
                for name, worker in self._workers.items()
                if self._is_up(worker) and family.get(name) is None
            }

    def workers(self) -> dict[str, bool]:
        """Return each worker that is shown, and whether it is up."""
        with self._lock:
            self._age()
            return {name: self._is_up(worker) for name, worker in self._workers.items()}

    def pool_size(self) -> float:
        """Return the number of processes of all workers that are up."""
        with self._lock:
            family = self._families["celery_worker_pool_size"]
            return sum(
                family.get(name) or 0
                for name, worker in self._workers.items()
                if self._is_up(worker)
            )

    def active(self) -> dict[str, float]:
        """Return how many tasks run on each worker that is shown."""
        with self._lock:
            family = self._families["celery_worker_active_tasks"]
            return {name: family.get(name) or 0 for name in self._workers}

    def lines(self) -> list[str]:
        """Write everything."""
        with self._lock:
            self._age()
            return [*self._families.lines(), *self._overflow.lines()]

    def _worker_event(self, kind: str, event: Mapping[str, Any]) -> None:
        name = str(event["hostname"])
        known = self._workers.get(name)
        if known is None:
            if len(self._workers) >= MAX_WORKERS:
                self.overflowed("celery_worker_up")
                return
            known = self._workers[name] = _Worker(self._clock())
        known.seen = self._clock()
        known.online = kind != "worker-offline"
        if kind == "worker-heartbeat":
            for field, gauge in (
                ("active", "celery_worker_active_tasks"),
                ("processed", "celery_worker_processed_tasks"),
            ):
                if event.get(field) is not None:
                    self._families[gauge].set(float(event[field]), name)
            self._families["celery_worker_last_heartbeat_timestamp_seconds"].set(
                round(time.time(), 3), name
            )

    def _task_event(self, kind: str, event: Mapping[str, Any]) -> None:
        uuid, at = str(event["uuid"]), float(event["timestamp"])
        worker = str(event["hostname"])
        task = self._tasks.pop(uuid, None) or _Task(queue=self._queue)
        task.name = str(event.get("name") or task.name)
        families = self._families
        exception, runtime = "", 0.0
        if kind == "task-sent":
            task.queue = str(event.get("queue") or task.queue)
            task.sent = at
            families["celery_tasks_sent_total"].inc(task.name, task.queue)
        elif kind == "task-failed":
            exception = _class_of(event.get("exception"))
            families["celery_worker_tasks_failed_total"].inc(worker, task.name, exception)
        else:
            families[_COUNTERS[kind]].inc(worker, task.name)
        if kind == "task-received":
            task.received = at
            # So that the first success or failure is an increase, not a beginning.
            families["celery_worker_tasks_succeeded_total"].inc(worker, task.name, by=0)
        elif kind == "task-started":
            if task.sent is not None:
                families_wait = "celery_task_queue_wait_seconds"
                families.observe(families_wait, at - task.sent, task.name)
            if task.received is not None:
                families.observe("celery_task_prefetch_wait_seconds", at - task.received, task.name)
        elif kind == "task-succeeded":
            runtime = float(event["runtime"])
            families.observe("celery_task_runtime_seconds", runtime, task.name)
        if kind not in _ENDS:
            self._tasks[uuid] = task
            if len(self._tasks) > MAX_TASKS:
                self._tasks.popitem(last=False)
        told = TaskEvent(kind, task.name, worker, task.queue, exception, runtime)
        for observe in self._observers:
            observe(told)

    def _is_up(self, worker: _Worker) -> bool:
        return worker.online and self._clock() - worker.seen < SILENCE_SECONDS

    def _age(self) -> None:
        """Show who is up; forget who has been gone for long, with all that it counted."""
        now = self._clock()
        for name, worker in list(self._workers.items()):
            if now - worker.seen > self._expire:
                del self._workers[name]
                self._families.forget("worker", name)
                continue
            up = self._is_up(worker)
            self._families["celery_worker_up"].set(up, name)
            if not up:
                self._families["celery_worker_active_tasks"].set(0, name)


def _class_of(exception: object) -> str:
    """Return the class that an exception's repr begins with.

    >>> _class_of("ValueError('no')"), _class_of("<Weird at 0x7f>"), _class_of(None)
    ('ValueError', 'unknown', 'unknown')
    """
    found = _EXCEPTION.match(exception) if isinstance(exception, str) else None
    return found[0] if found else UNKNOWN
