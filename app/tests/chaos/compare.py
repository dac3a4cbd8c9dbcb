"""The same load and the same kills for several brokers: `make chaos-compare`.

A plain Celery app with `task_acks_late`, one worker of four threads, 1,000 tasks over eight keys. First
the worker is killed five times (`kill -9`) and started again at once; then, with a fresh broker, the
broker is killed while tasks are published and run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scheduler import processes
from tests.chaos.contenders import Contender, Ours, RabbitMQ, Redis, TheirKafka
from tests.chaos.history import History
from tests.chaos.verdict import Verdict, judge

#: Who takes part.
CONTENDERS: tuple[Callable[[Path], Contender], ...] = (Ours, TheirKafka, Redis, RabbitMQ)
#: Keys that tasks have, in turn.
KEYS = 8


class Match:
    """One broker, its worker, its publisher, its history."""

    def __init__(self, contender: Contender, directory: Path, tasks: int) -> None:
        self._contender, self._directory, self._tasks = contender, directory, tasks
        self._history = History(directory / "history.jsonl")
        self._worker: subprocess.Popen[bytes] | None = None

    def workers_killed(self, kills: int) -> Verdict:
        """Publish everything, then kill the worker again and again."""
        self._publish().wait()
        for kill in range(kills):
            self._start()
            self._until((kill + 1) * self._tasks // (kills + 1))
            self._kill()
            self._history.note("hit", kind="kill-worker", worker="compare")
        self._start()
        self._until(self._tasks)
        return self._verdict()

    def broker_killed(self) -> Verdict:
        """Kill the broker while tasks are published and run."""
        self._start()
        self._until(1, publishing=(publisher := self._publish()))
        self._until(self._tasks // 3, publishing=publisher)
        since = time.monotonic()
        self._history.note("hit", kind="disconnect", worker="compare")
        self._contender.crash()
        self._history.note("hit", kind="kill-broker", since=since)
        self._until(self._tasks, publishing=publisher)
        publisher.wait()
        return self._verdict()

    def close(self) -> None:
        self._kill()

    def _environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "COMPARE_BROKER": self._contender.url,
            "COMPARE_OPTIONS": json.dumps(self._contender.options),
            "CHAOS_HISTORY": str(self._history.path),
        }

    def _run(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self._directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *command],
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=processes.dies_with_parent(),
            )

    def _publish(self) -> subprocess.Popen[bytes]:
        return self._run("publisher", "tests.chaos.publishing", str(self._tasks), str(KEYS))

    def _start(self) -> None:
        self._worker = self._run(
            "worker", "celery", "-A", "tests.chaos.plain", "worker",
            "-P", "threads", "-c", "4", "--without-mingle", "--without-gossip",
        )  # fmt: skip

    def _kill(self) -> None:
        if self._worker is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._worker.pid, signal.SIGKILL)
            self._worker.wait()

    def _until(self, ended: int, publishing: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until so many tasks have ended, or none does any more."""
        best, since = -1, time.monotonic()
        while time.monotonic() - since < self._contender.patience:
            done = len({e["n"] for e in self._history.events() if e["e"] == "end"})
            if done >= ended:
                return
            if done > best or (publishing is not None and publishing.poll() is None):
                best, since = done, time.monotonic()
            if self._worker is not None and self._worker.poll() is not None:
                self._history.note("hit", kind="kill-worker", worker="compare")
                self._start()
            time.sleep(0.1)

    def _verdict(self) -> Verdict:
        return judge(self._history.events(), "compare", ordered=True, rewinds=True)


def main() -> int:
    """Run all of them, or those that are named; print a table and write JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.compare", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--only", help="a part of a contender's name")
    parser.add_argument("--output", type=Path, default=Path.cwd() / ".cache" / "compare.json")
    given = parser.parse_args()
    console = Console(width=130)
    columns = (
        "broker", "killed", "confirmed", "unsure", "lost", "ran twice", "of these not in flight",
        "two of a key at once", "out of order", "seconds",
    )  # fmt: skip
    table = Table(*columns, title=f"{given.tasks} tasks")
    results = []
    for make in CONTENDERS:
        if given.only and given.only.lower() not in make.__name__.lower():
            continue
        for killed in (f"worker, {given.kills} times", "broker, once"):
            with tempfile.TemporaryDirectory(prefix="compare-", ignore_cleanup_errors=True) as name:
                contender = make(Path(name))
                match = Match(contender, Path(name), given.tasks)
                contender_name = contender.name
                try:
                    contender.start()
                    began = time.monotonic()
                    if killed.startswith("worker"):
                        verdict = match.workers_killed(given.kills)
                    else:
                        verdict = match.broker_killed()
                    seconds = time.monotonic() - began
                finally:
                    match.close()
                    contender.stop()
            again = verdict.repeats_running + verdict.repeats_unsettled + verdict.unexplained
            cells = (
                contender_name, killed, verdict.confirmed, verdict.unsure, len(verdict.lost), again,
                verdict.unexplained, verdict.together + verdict.overlaps, verdict.disordered, round(seconds),
            )  # fmt: skip
            table.add_row(*map(str, cells))
            results.append(dict(zip(columns, cells, strict=True)))
            console.print(" · ".join(map(str, cells)), highlight=False)
            given.output.write_text(json.dumps(results, indent=2) + "\n")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
