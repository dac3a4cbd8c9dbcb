"""Workers of a plain Celery app, and a Redis for their results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from kombu_kafka import topics
from kombu_kafka.options import Options
from scheduler import processes
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

__all__ = ["Plain", "running_redis"]


@contextmanager
def running_redis(directory: Path) -> Iterator[str]:
    """Run a Redis of our own; gives its URL."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("redis-server is not installed (Debian: redis-server).")
    port = processes.free_port()
    process = subprocess.Popen(
        [
            program,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(directory),
            "--save",
            "",
        ],
        stdout=subprocess.DEVNULL,
        preexec_fn=processes.dies_with_parent(),
    )

    def answers() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        eventually(answers, what="Redis answers")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


@dataclass
class Plain:
    """A plain app on topics of its own, and the workers that a test starts for it."""

    kafka: LocalKafka
    directory: Path
    results: str
    topic: str
    queues: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    broker: str | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = self.directory / f"{self.topic}.ledger"
        self.log = self.directory / f"{self.topic}.log"
        self.options = {
            "group_id": self.topic,
            "dead_letter_topic": f"{self.topic}-dlq",
            "delay_topic": f"{self.topic}-delay",
            "connect_timeout": 20,
            "commit_interval": 0.05,
            **self.options,
        }
        self.url = self.broker or self.kafka.url(self.topic)
        self.app: Celery = Celery("plain-client", broker=self.url, backend=self.results)
        self.app.conf.update(broker_transport_options=self.options, **self.settings)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of the app's processes."""
        return {
            **os.environ,
            "PLAIN_BROKER": self.url,
            "PLAIN_RESULTS": self.results,
            "PLAIN_OPTIONS": json.dumps(self.options),
            "PLAIN_SETTINGS": json.dumps(self.settings),
            "PLAIN_QUEUES": ",".join(self.queues),
            "PLAIN_LEDGER": str(self.ledger),
        }

    def start(self, *arguments: str, command: str = "worker") -> subprocess.Popen[bytes]:
        """Start a worker; `ready` waits for it."""
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "celery", "-A", "tests.plain", command,
                 "-l", "INFO", *arguments],
                env=self.environ, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                cwd=self.directory, start_new_session=True,
                preexec_fn=processes.dies_with_parent(),
            )  # fmt: skip
        self.processes.append(process)
        return process

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        """Queue a task."""
        return self.app.send_task(f"plain.{name}", args, **options)

    def noted(self) -> list[str]:
        """Return what the tasks wrote down."""
        if not self.ledger.exists():
            return []
        whole, _, _ = self.ledger.read_text().rpartition("\n")  # not half of what is just written
        return whole.splitlines()

    def lag(self) -> int:
        """Return how many tasks are not done."""
        options = Options.of(self.url, {**self.options, "connect_timeout": 20})
        lags = [topics.lag(options, name).values() for name in (self.topic, *self.queues[1:])]
        return sum(end - (committed or 0) for lag in lags for committed, end in lag)

    def stop(self) -> None:
        """End what is still running."""
        for process in self.processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.app.close()
