"""What a bench found, and on which machine; it lies in docs/benchmarks/results.json."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.bench.bench import Figures

__all__ = ["Results", "Summary", "machine", "summary"]


@dataclass
class Results:
    """Everything that was found.

    Attributes:
        machine: What it ran on.
        repeats: How often each was repeated, unless its workload says less.
        runs: Workload → contender → the figures of each repeat.
        failures: What came to nothing: workload, contender, why.
    """

    machine: dict[str, str]
    repeats: int
    runs: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    failures: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, workload: str, contender: str, figures: Figures) -> None:
        self.runs.setdefault(workload, {}).setdefault(contender, []).append(figures)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        return cls(**json.loads(path.read_text()))


@dataclass(frozen=True)
class Summary:
    """One figure of one contender over its repeats."""

    median: float
    least: float
    most: float
    count: int


def summary(runs: Sequence[Figures], name: str) -> Summary | None:
    """Return a figure over the repeats, without those in which tasks were lost; None without any."""
    counts = name in ("lost", "again")
    values = [run[name] for run in runs if name in run and (counts or not run.get("lost"))]
    if not values:
        return None
    return Summary(statistics.median(values), min(values), max(values), len(values))


def machine() -> dict[str, str]:
    """Say on what this runs."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "Kafka": "4.3.0",
        "Redis": _said("redis-server", "--version", pattern=r"v=(\S+)"),
        "RabbitMQ": _said("dpkg-query", "-W", "rabbitmq-server", pattern=r"\s(\S+)"),
        "load": f"{os.getloadavg()[0]:.1f} processes running at the start",
    }
    packages = ("celery", "kombu", "kafka-python", "confluent-kafka", "py-amqp", "redis")
    for package in packages:
        found[package] = version(package.replace("py-amqp", "amqp"))
    return found


def _said(*command: str, pattern: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout)
    return found[1] if found else "unknown"
