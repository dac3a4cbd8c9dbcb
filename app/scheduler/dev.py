"""A whole system on this machine for as long as it is wanted: one broker, a worker a partition."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from kombu_kafka.wording import counted
from scheduler.factory import create_app, import_tasks
from scheduler.local_broker import LocalBrokerError, LocalKafka
from scheduler.local_worker import LocalWorker, LocalWorkerError
from scheduler.preflight import EX_CONFIG
from scheduler.settings import Settings

__all__ = ["DevSystem", "Supervised"]

#: Seconds for the workers to be ready: each imports the app, and small machines have few cores.
START_TIMEOUT = 120.0
#: Seconds a worker gets to finish what it runs when the system ends.
STOP_PATIENCE = 10.0
#: Seconds after which a worker that ended is started again, as the systemd unit does.
RESTART_SECONDS = 2.0
#: One that ends more often than this within so many seconds will not do better next time.
MAX_RESTARTS, WITHIN_SECONDS = 5, 120.0

#: Says a sentence to the person at the terminal.
Say = Callable[[str], object]


class Supervised:
    """A worker that is started again when it has ended, whatever ended it, but not for ever.

    Args:
        worker: It is running.
    """

    def __init__(self, worker: LocalWorker) -> None:
        self._worker = worker
        self._ends: deque[float] = deque(maxlen=MAX_RESTARTS + 1)
        #: When it is to be started again; None while it runs.
        self._again_at: float | None = None
        self._awaited = False

    def look(self, say: Say) -> None:
        """Do what is due.

        Raises:
            LocalWorkerError: It ends again and again, or for a reason that stays.
        """
        if self._again_at is not None:
            if time.monotonic() >= self._again_at:
                self._again_at = None
                self._worker.start()
            return
        try:
            self._worker.look()
        except LocalWorkerError:
            self._ended(say)
            return
        if self._awaited and self._worker.ready:
            self._awaited = False
            say(f"{self._worker.name} is ready again.")

    def _ended(self, say: Say) -> None:
        worker, now = self._worker, time.monotonic()
        code = worker.wait(0)
        how = f"was ended by {_signal(-code)}" if code < 0 else f"ended with code {code}"
        self._ends.append(now)
        if code == EX_CONFIG:
            raise LocalWorkerError(
                f"{worker.name} {how}, which another start would not mend:\n{worker.log_tail()}"
            )
        if len(self._ends) > MAX_RESTARTS and now - self._ends[0] <= WITHIN_SECONDS:
            raise LocalWorkerError(
                f"{worker.name} {how}, for the {len(self._ends)}th time within"
                f" {WITHIN_SECONDS:g} seconds:\n{worker.log_tail()}"
            )
        worker.stop()  # what its main process left
        say(f"{worker.name} {how}; it is started again. Its log is {worker.log}.")
        self._again_at, self._awaited = now + RESTART_SECONDS, True


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals have none
        return f"signal {number}"


class DevSystem:
    """One broker and a worker for each partition; a context manager that removes them.

    Args:
        partitions: How many partitions, and workers.
        app_name: What CELERY_APP_MODULE says: a team's modules, or its app.
        logs: Where logs are kept; by default they go with the system, unless that fails.
    """

    def __init__(self, partitions: int, app_name: str, *, logs: Path | None = None) -> None:
        sys.path.insert(0, os.getcwd())  # where `python -m celery` looks for a team's modules too
        self.kafka = LocalKafka()
        #: A producer's app on this system.
        self.app = create_app(
            Settings.from_environ(
                {"CELERY_BROKER_URL": self.kafka.url(), "CELERY_APP_MODULE": app_name}
            )
        )
        import_tasks(self.app)
        self._temporary = logs is None
        self.logs = logs or Path(tempfile.mkdtemp(prefix="scheduler-dev-"))
        self.logs.mkdir(parents=True, exist_ok=True)
        self._workers = [
            LocalWorker(
                self.kafka.url(),
                partition,
                directory=self.logs,
                environ={"CELERY_APP_MODULE": app_name},
            )
            for partition in range(partitions)
        ]

    def start(self, say: Say = lambda text: None) -> None:
        """Start all of it and wait until every worker consumes its partition.

        Raises:
            LocalBrokerError: The broker does not start.
            LocalWorkerError: A worker does not.
        """
        count = len(self._workers)
        say("Starting Kafka …")
        self.kafka.start()
        say(f"Making the topics tasks ({counted(count, 'partition')}) and celery_tasks_dlq …")
        self.kafka.create_topic("tasks", count)
        self.kafka.create_topic("celery_tasks_dlq", 3, {"retention.ms": "604800000"})
        say(f"Starting {counted(count, 'worker')}, one for each partition …")
        for worker in self._workers:
            worker.start()
        deadline = time.monotonic() + START_TIMEOUT
        for number, worker in enumerate(self._workers, 1):
            worker.wait_ready(deadline - time.monotonic())
            say(f"{worker.name} is ready ({number} of {count}).")

    def supervise(self, say: Say = lambda text: None) -> None:
        """Start again what ends, until somebody interrupts.

        Raises:
            LocalBrokerError: The broker has ended.
            LocalWorkerError: A worker ends again and again.
        """
        supervised = [Supervised(worker) for worker in self._workers]
        while True:
            for worker in supervised:
                worker.look(say)
            for node in self.kafka.nodes:
                if not node.running:
                    raise LocalBrokerError(f"The broker ended:\n{node.log_tail()}")
            time.sleep(0.2)

    def stop(self, *, keep_logs: bool = False) -> None:
        """End every process and remove what they left."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.stop(STOP_PATIENCE)
        if keep_logs:
            for node in self.kafka.nodes:
                with suppress(OSError):  # a disk that is full, say, keeps nothing from its end
                    shutil.copy(node.log, self.logs)
        self.kafka.stop()
        for worker in self._workers:
            shutil.rmtree(worker.state, ignore_errors=True)
        if self._temporary and not keep_logs:
            shutil.rmtree(self.logs, ignore_errors=True)

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
        # ^C is no Exception.
        self.stop(keep_logs=isinstance(error, Exception))
