"""What a workload is given: the servers, and processes that publish to them and work for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self

from scheduler import processes
from tests.bench.contenders import OURS, OURS_FAST, Contender, Servers
from tests.bench.marks import Marks

__all__ = ["Bench", "BenchError", "Figures", "Sizes", "Worker"]

#: What a workload found: name of a figure → value. `lost` above 0 makes the others void.
Figures = dict[str, float]

TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A run came to nothing; the message says why."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything there is; `SHORT` shows that it works, and measures nothing.

    Attributes:
        drain: Tasks that a worker drains.
        publish: Messages published one at a time.
        bulk: Messages published in bulk.
        latency: Tasks sent to an idle worker.
        keys: Tasks with a key; `partition` order gets a tenth.
        delayed: Tasks that are due in an hour; brokers whose workers take them in get a fifth.
        backlogs: Tasks waiting, for the curve of the backlog.
        partitions: For the curve of partitions.
        workers: For the curve of workers.
        waiting: Tasks that wait 0.1 s, for each of these workers.
        idle: Seconds for which an idle worker is watched.
        patience: Seconds without progress after which what is missing counts as lost.
        exporter: Partitions and groups that the exporter looks at.
    """

    drain: int = 20_000
    publish: int = 1_000
    bulk: int = 20_000
    latency: int = 400
    keys: int = 4_000
    delayed: int = 100_000
    backlogs: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    partitions: tuple[int, ...] = (1, 10, 100)
    workers: tuple[int, ...] = (1, 2, 4, 8, 16)
    waiting: int = 60
    idle: float = 12.0
    patience: float = 15.0
    exporter: tuple[int, int] = (1000, 50)


SHORT = Sizes(
    drain=200, publish=30, bulk=200, latency=10, keys=100, delayed=200, backlogs=(200, 1000),
    partitions=(1, 4), workers=(1, 2), waiting=5, idle=1.0, patience=60.0, exporter=(20, 2),
)  # fmt: skip


class Worker:
    """A Celery worker, its children with it.

    Args:
        environ: What `tests.bench.celery_app` reads.
        log: Its output.
        arguments: More of its command line.
    """

    def __init__(self, environ: Mapping[str, str], log: Path, arguments: Iterable[str]) -> None:
        self.log = log
        self.began = time.monotonic()
        command = ["-m", "celery", "-A", "tests.bench.celery_app", "worker", "-l", "WARNING"]
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", *command, *arguments],
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=processes.dies_with_parent(),
            )

    def memory(self) -> float:
        """Resident memory of the main process in MB."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu(self) -> float:
        """Seconds of a core that the main process has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self) -> None:
        """End it; a bench has nothing to keep."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Bench:
    """The world of the workloads."""

    def __init__(self, servers: Servers, sizes: Sizes, directory: Path) -> None:
        self.servers, self.sizes, self.directory = servers, sizes, directory
        self._numbers = count(1)

    def contender(self, name: str) -> Contender:
        return self.servers.contenders[name]

    def run(self, contender: str, tasks: int, *, partitions: int = 1, **options: Any) -> Run:
        """Begin a run: a queue of its own, and a place for each task.

        Args:
            contender: Its name.
            tasks: How many there will be.
            partitions: Of the queue's topic, with Kafka.
            options: Transport options besides the contender's.
        """
        name = f"bench-{next(self._numbers)}"
        if contender in (OURS, OURS_FAST):
            self.servers.kafka.create_topic(name, partitions)
            # Each run is a deployment of its own: groups keep nothing of one another.
            options = {"group_id": name, "delay_topic": f"{name}.delay", **options}
        directory = self.directory / name
        directory.mkdir()
        return Run(self, self.contender(contender), name, directory, tasks, options)

    def python(self, module: str, *arguments: str, environ: Mapping[str, str]) -> Figures:
        """Run a module; return the figures that it prints.

        Raises:
            BenchError: it failed.
        """
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", module, *arguments],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            preexec_fn=processes.dies_with_parent(),
        )
        if done.returncode != 0:
            raise BenchError(f"{module} {arguments[0]} failed:\n{done.stderr.strip()[-2000:]}")
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        return figures

    def load(self, topic: str, count: int) -> None:
        """Fill a topic with tasks as fast as it goes, past Celery."""
        facts = json.dumps({"bootstrap": self.servers.kafka.bootstrap[0], "topic": topic})
        self.python("tests.bench.loader", facts, str(count), environ={})

    def bare(self, client: str, how: str, topic: str, count: int, **more: float) -> Figures:
        """Return what a bare client of Kafka can do."""
        where = {"bootstrap": self.servers.kafka.bootstrap[0], "topic": topic}
        facts = json.dumps({**where, "count": count, **more})
        return self.python("tests.bench.bare", client, how, facts, environ={})


class Run:
    """One contender at one piece of work."""

    def __init__(
        self, bench: Bench, contender: Contender, queue: str, directory: Path, tasks: int,
        options: dict[str, Any],
    ) -> None:  # fmt: skip
        self.queue, self.directory, self.tasks = queue, directory, tasks
        self.marks = Marks(directory / "marks", tasks)
        self._bench, self._contender = bench, contender
        self._options = options
        self._workers = count(1)

    def publish(self, how: str, **facts: Any) -> Figures:
        """Publish, as `tests.bench.publisher` does."""
        environ = self._environ(self.directory / "publisher", {})
        if how in ("fill", "delayed"):  # not measured: no reason to wait for each confirmation
            environ = self._environ(self.directory / "publisher", {}, confirm_publish=False)
        return self._bench.python("tests.bench.publisher", how, json.dumps(facts), environ=environ)

    def worker(
        self, pool: str = "solo", concurrency: int = 1, *, bare: bool = True,
        settings: Mapping[str, Any] | None = None, **options: Any,
    ) -> Worker:  # fmt: skip
        """Start a worker.

        Args:
            pool: Celery's pool.
            concurrency: Its size.
            bare: Without what workers tell each other; else as Celery starts by default.
            settings: Celery's, besides the app's.
            options: Transport options besides the run's.
        """
        number = next(self._workers)
        state = self.directory / f"state{number}"
        state.mkdir()
        arguments = ["-P", pool, "-c", str(concurrency), "-n", f"{self.queue}-{number}@bench"]
        if bare:
            arguments += ["--without-mingle", "--without-gossip", "--without-heartbeat"]
        environ = self._environ(state, settings or {}, **options)
        return Worker(environ, self.directory / f"worker{number}.log", arguments)

    def finish(self, wanted: int | None = None, *, patience: float | None = None) -> Figures:
        """Wait for the end; return the rate, and what was lost or ran more than once."""
        wanted = self.tasks if wanted is None else wanted
        given = self._bench.sizes.patience if patience is None else patience
        # The first takes as long as a worker takes to start.
        self.marks.wait(1, patience=60)
        seen = self.marks.wait(wanted, patience=given)
        began = sorted(filter(None, self.marks.began()[:wanted]))
        if len(began) < 2:
            raise BenchError(f"no task ran:\n{self.log_tail()}")
        rate = (len(began) - 1) / (began[-1] - began[0])
        return {"rate": rate, "lost": max(0, wanted - seen), "again": self.marks.repeats()}

    def log_tail(self) -> str:
        return processes.tail(self.directory / "worker1.log")

    def close(self) -> None:
        self.marks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _environ(self, state: Path, settings: Mapping[str, Any], **options: Any) -> dict[str, str]:
        told = {**self._contender.options(state), **self._options, **options}
        return {
            "BENCH_BROKER": self._contender.url(self.queue),
            "BENCH_QUEUE": self.queue,
            "BENCH_OPTIONS": json.dumps(told),
            "BENCH_SETTINGS": json.dumps(dict(settings)),
            "BENCH_MARKS": str(self.marks.path),
        }
