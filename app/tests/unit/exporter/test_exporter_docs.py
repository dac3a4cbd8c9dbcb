"""docs/monitoring.md says of each metric what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scheduler import metrics

ROOT = Path(__file__).parents[4]


def test_the_page_is_made_from_the_definitions() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "metrics_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_names_follow_prometheus_conventions() -> None:
    for name, metric in metrics.ALL.items():
        assert name == metric.name
        assert metric.help.strip().endswith("."), name
        assert (metric.kind == "counter") == name.endswith("_total"), name


def test_the_names_that_the_mission_fixes_are_there() -> None:
    assert metrics.EXPORTER["celery_worker_tasks_succeeded_total"].kind == "counter"
    assert metrics.EXPORTER["celery_task_runtime_seconds"].kind == "histogram"
    assert metrics.EXPORTER["kafka_consumer_group_lag"].labels == ("group", "topic", "partition")
