"""A whole system on this machine for as long as it is wanted: one broker, a worker a partition."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from scheduler.factory import create_app, import_tasks
from scheduler.local_broker import LocalBrokerError, LocalKafka
from scheduler.local_worker import LocalWorker, LocalWorkerError
from scheduler.settings import Settings

__all__ = ["DevSystem"]

#: Seconds for the workers to be ready: each imports the app, and small machines have few cores.
START_TIMEOUT = 120.0

#: Seconds a worker gets to finish what it runs when the system ends.
STOP_PATIENCE = 10.0


class DevSystem:
    """One broker and a worker for each partition; a context manager that removes them.

    Args:
        partitions: How many partitions, and workers.
        app_name: What CELERY_APP_MODULE says: a team's modules, or its app.
        logs: Where logs are kept; by default they go with the system.
    """

    def __init__(self, partitions: int, app_name: str, *, logs: Path | None = None) -> None:
        sys.path.insert(0, os.getcwd())  # where `python -m celery` looks for a team's modules too
        self.kafka = LocalKafka()
        self._temporary = tempfile.TemporaryDirectory(prefix="scheduler-dev-")
        self.logs = logs or Path(self._temporary.name)
        self.logs.mkdir(parents=True, exist_ok=True)
        #: A producer's app on this system.
        self.app = create_app(
            Settings.from_environ(
                {"CELERY_BROKER_URL": self.kafka.url(), "CELERY_APP_MODULE": app_name}
            )
        )
        import_tasks(self.app)
        self._workers = [
            LocalWorker(
                self.kafka.url(),
                partition,
                directory=self.logs,
                environ={"CELERY_APP_MODULE": app_name},
            )
            for partition in range(partitions)
        ]

    def start(self, say: Callable[[str], object] = lambda text: None) -> None:
        """Start all of it and wait until every worker consumes its partition.

        Raises:
            LocalBrokerError: The broker does not start.
            LocalWorkerError: A worker does not.
        """
        say("Starting one Kafka broker …")
        self.kafka.start()
        self.kafka.create_topic("tasks", len(self._workers))
        self.kafka.create_topic("celery_tasks_dlq", 3, {"retention.ms": "604800000"})
        say(f"Starting {len(self._workers)} workers …")
        for worker in self._workers:
            worker.start()
        deadline = time.monotonic() + START_TIMEOUT
        for worker in self._workers:
            worker.wait_ready(deadline - time.monotonic())

    def supervise(self) -> None:
        """Watch until something dies or somebody interrupts."""
        while True:
            for worker in self._workers:
                worker.look()
            for node in self.kafka.nodes:
                if not node.running:
                    raise LocalBrokerError(f"The broker ended:\n{node.log_tail()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End every process and remove what they left."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.stop(STOP_PATIENCE)
        self.kafka.stop()
        for worker in self._workers:
            shutil.rmtree(worker.state, ignore_errors=True)
        self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, (LocalBrokerError, LocalWorkerError)):
            # Nothing that stopped will finish anything: no need to be patient.
            for worker in self._workers:
                worker.kill()
        self.stop()
