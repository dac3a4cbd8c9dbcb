"""Celery's events become metrics; what is damaged or too much does no harm."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scheduler.exporter import events as module
from scheduler.exporter.compat import CompatMetrics
from scheduler.exporter.events import EventState
from scheduler.metrics import COMPAT

WORKER = "worker-0@kafka1"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def value(lines: list[str], name: str, /, **labels: str) -> float | None:
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            if sample.name == name and sample.labels.items() >= labels.items():
                return float(sample.value)
    return None


def event(kind: str, uuid: str = "u1", at: float = 100.0, **more: Any) -> dict[str, Any]:
    return {"type": kind, "uuid": uuid, "timestamp": at, "hostname": WORKER, **more}


def run(state: EventState, uuid: str = "u1", end: str = "task-succeeded", **more: Any) -> None:
    state.handle(event("task-sent", uuid, 100, name="orders.pay", queue="tasks"))
    state.handle(event("task-received", uuid, 103, name="orders.pay"))
    state.handle(event("task-started", uuid, 104))
    state.handle(event(end, uuid, 106, **more))


def test_a_task_that_succeeds_is_counted_under_the_names_of_the_mission() -> None:
    state = EventState()
    run(state, runtime=2.0)
    lines = state.lines()
    task = {"task": "orders.pay"}
    assert value(lines, "celery_worker_tasks_succeeded_total", worker=WORKER, **task) == 1
    assert value(lines, "celery_task_runtime_seconds_sum", **task) == 2
    assert value(lines, "celery_task_runtime_seconds_bucket", le="2.5", **task) == 1
    assert value(lines, "celery_task_runtime_seconds_bucket", le="1", **task) == 0
    assert value(lines, "celery_task_queue_wait_seconds_sum", **task) == 4
    assert value(lines, "celery_task_prefetch_wait_seconds_sum", **task) == 1
    assert value(lines, "celery_tasks_sent_total", queue="tasks", **task) == 1


@pytest.mark.parametrize(
    ("exception", "name"),
    [("ValueError('x')", "ValueError"), ("a.b.Odd", "a.b.Odd"), ("<x>", "unknown"), (7, "unknown")],
)
def test_failures_are_counted_by_their_exception(exception: object, name: str) -> None:
    state = EventState()
    run(state, end="task-failed", exception=exception)
    assert value(state.lines(), "celery_worker_tasks_failed_total", exception=name) == 1


@pytest.mark.parametrize("kind", ["retried", "revoked", "rejected", "started", "received"])
def test_other_ends_are_counted(kind: str) -> None:
    state = EventState()
    state.handle(event(f"task-{kind}", name="t"))
    assert value(state.lines(), f"celery_worker_tasks_{kind}_total", worker=WORKER) == 1


def test_a_success_is_an_increase_from_the_first_on() -> None:
    state = EventState()
    state.handle(event("task-received", name="t"))
    assert value(state.lines(), "celery_worker_tasks_succeeded_total", task="t") == 0


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"type": None},
        {"type": "task-started"},
        event("task-succeeded", at="late"),  # type: ignore[arg-type]
        event("task-succeeded"),
        {"type": "worker-heartbeat"},
        {"type": "worker-heartbeat", "hostname": "w", "active": "many"},
    ],
)
def test_a_damaged_event_is_counted_and_does_no_harm(damaged: dict[str, Any]) -> None:
    state = EventState()
    state.handle(damaged)
    assert value(state.lines(), "celery_exporter_malformed_events_total") == 1


def test_a_worker_is_up_until_it_is_silent_then_down_then_forgotten() -> None:
    clock = Clock()
    state = EventState(expire=600, clock=clock)
    run(state, runtime=1.0)
    state.handle({"type": "worker-heartbeat", "hostname": WORKER, "active": 3, "processed": 8})
    state.pool_sizes({WORKER: 4, "stranger": 9})
    lines = state.lines()
    assert value(lines, "celery_worker_up", worker=WORKER) == 1
    assert value(lines, "celery_worker_active_tasks", worker=WORKER) == 3
    assert value(lines, "celery_worker_processed_tasks", worker=WORKER) == 8
    assert value(lines, "celery_worker_pool_size", worker=WORKER) == 4
    assert state.pool_size() == 4
    clock.now = 31
    lines = state.lines()
    assert value(lines, "celery_worker_up", worker=WORKER) == 0
    assert value(lines, "celery_worker_active_tasks", worker=WORKER) == 0
    clock.now = 601
    assert WORKER not in "\n".join(state.lines())


def test_a_worker_that_says_goodbye_is_down_at_once() -> None:
    state = EventState()
    state.handle({"type": "worker-online", "hostname": WORKER})
    assert value(state.lines(), "celery_worker_up", worker=WORKER) == 1
    state.handle({"type": "worker-offline", "hostname": WORKER})
    assert value(state.lines(), "celery_worker_up", worker=WORKER) == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TASKS", 100)
    monkeypatch.setattr(module, "MAX_WORKERS", 5)
    state = EventState()
    for number in range(5000):
        state.handle(event("task-received", str(number), name=f"task-{number}"))
        state.handle({"type": "worker-heartbeat", "hostname": f"w{number}", "active": 0})
    assert len(state._tasks) == 100
    lines = state.lines()
    assert len(lines) < 10_000
    assert value(lines, "celery_worker_tasks_received_total", task="other") == 3000
    overflow = "celery_exporter_series_overflow_total"
    assert value(lines, overflow, metric="celery_worker_tasks_received_total") == 3000
    assert value(lines, overflow, metric="celery_worker_up") == 4995


def test_the_other_exporters_names_are_served_from_the_same_events() -> None:
    compat = CompatMetrics("tasks")
    state = EventState(observers=[compat.observe])
    run(state, runtime=2.0)
    lines = compat.lines(state, owned=4)
    assert value(lines, "celery_task_failed_total", name="orders.pay", exception="") == 0
    run(state, "u2", end="task-failed", exception="KeyError('k')")
    state.handle({"type": "worker-heartbeat", "hostname": WORKER, "active": 1})
    lines = compat.lines(state, owned=4)
    labels = {"name": "orders.pay", "hostname": "kafka1", "queue_name": "tasks"}
    assert value(lines, "celery_task_succeeded_total", **labels) == 1
    assert value(lines, "celery_task_failed_total", exception="KeyError", **labels) == 1
    assert value(lines, "celery_task_revoked_total", **labels) == 0
    assert value(lines, "celery_task_runtime_count", **labels) == 1
    assert value(lines, "celery_worker_tasks_active", hostname="kafka1") == 1
    assert value(lines, "celery_active_consumer_count", queue_name="tasks") == 4
    assert value(lines, "celery_active_worker_count", queue_name="tasks") == 1
    families = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert families == set(COMPAT)
