"""A whole system on this machine for as long as it is wanted: one broker, a worker a partition."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from scheduler import processes
from scheduler.local_broker import LocalKafka
from scheduler.settings import Settings
from scheduler.smoke import SmokeResult

__all__ = ["DevError", "DevSystem"]

#: Seconds for the workers to be ready: each imports the app, and small machines have few cores.
START_TIMEOUT = 60.0

#: Seconds a worker gets to finish what it runs when the system ends.
STOP_PATIENCE = 10.0


class DevError(Exception):
    """The local system can't go on; the message says why and shows the log."""


@dataclass
class _Worker:
    partition: int
    process: subprocess.Popen[bytes]
    log: Path
    notify: socket.socket
    ready: bool = False

    def look(self) -> None:
        """Note readiness; complain about death."""
        if self.process.poll() is not None:
            raise DevError(
                f"The worker of partition {self.partition} ended with code"
                f" {self.process.returncode}:\n{processes.tail(self.log)}"
            )
        try:
            while True:
                self.ready |= b"READY=1" in self.notify.recv(4096)
        except BlockingIOError:
            pass


class DevSystem:
    """One broker and a worker for each partition.

    Args:
        partitions: How many partitions, and workers.
        app_name: What CELERY_APP_MODULE says: a team's modules, or its app.
        logs: Where logs are kept; by default they go with the system.
    """

    def __init__(self, partitions: int, app_name: str, *, logs: Path | None = None) -> None:
        self.kafka = LocalKafka()
        self._partitions = partitions
        self._app_name = app_name
        self._directory = Path(tempfile.mkdtemp(prefix="scheduler-dev-"))
        self.logs = logs or self._directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._workers: list[_Worker] = []

    def start(self, say: Callable[[str], object] = lambda text: None) -> None:
        """Start all of it and wait until every worker consumes its partition."""
        Settings.from_environ(self._environ(0))  # a bad --app is told before anything starts
        self.kafka.start()
        self.kafka.create_topic("tasks", self._partitions)
        self.kafka.create_topic("celery_tasks_dlq", 3, {"retention.ms": "604800000"})
        say(f"Starting {self._partitions} workers …")
        for partition in range(self._partitions):
            self._workers.append(self._start_worker(partition))
        deadline = time.monotonic() + START_TIMEOUT
        while not all(worker.ready for worker in self._workers):
            for worker in self._workers:
                worker.look()
            if time.monotonic() > deadline:
                late = next(worker for worker in self._workers if not worker.ready)
                raise DevError(
                    f"The worker of partition {late.partition} was not ready within"
                    f" {START_TIMEOUT:.0f} s:\n{processes.tail(late.log)}"
                )
            time.sleep(0.05)

    def smoke(self, tasks: int, timeout: float) -> SmokeResult:
        """Send tasks through the system and say what became of them."""
        from scheduler.cli import smoke_with_bar
        from scheduler.factory import create_app

        app = create_app(Settings(broker_url=self.kafka.url()))
        app.finalize()
        app.loader.import_default_modules()
        return smoke_with_bar(app, tasks, timeout)

    def supervise(self) -> None:
        """Watch the workers until one dies or somebody interrupts."""
        while True:
            for worker in self._workers:
                worker.look()
            for node in self.kafka.nodes:
                if not node.running:
                    raise DevError(f"The broker ended:\n{node.log_tail()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End every process and remove what they left."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            processes.stop(worker.process, STOP_PATIENCE)
            worker.notify.close()
        self._workers.clear()
        self.kafka.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start_worker(self, partition: int) -> _Worker:
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.setblocking(False)
        notify.bind(str(self._directory / f"notify{partition}"))
        environ = self._environ(partition)
        Path(environ["STATE_DIRECTORY"]).mkdir(exist_ok=True)
        log = self.logs / f"worker-{partition}.log"
        command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "scheduler", "worker"]
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*command, "-n", f"worker-{partition}@%h", "-c", "1", "-l", "INFO"],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # ^C is for us: we end them one by one
                preexec_fn=processes.dies_with_parent(),
            )
        return _Worker(partition, process, log, notify)

    def _environ(self, partition: int) -> dict[str, str]:
        return {
            **os.environ,
            "CELERY_BROKER_URL": self.kafka.url(),
            "CELERY_APP_MODULE": self._app_name,
            "CELERY_UNIT": f"worker-{partition}",
            "CUSTOM_PARTITION": str(partition),
            "CELERY_ORDERING": "partition",
            "STATE_DIRECTORY": str(self._directory / f"state{partition}"),
            "NOTIFY_SOCKET": str(self._directory / f"notify{partition}"),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
