"""The command `scheduler`, as people and scripts call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually

pytestmark = pytest.mark.filterwarnings("default")


def _scheduler(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("scheduler")), *args],
        env={**os.environ, "COLUMNS": "120", **environ},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@contextmanager
def _dev(errors: Path, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """`scheduler dev` with one worker: its messages go to a file, what it makes into a directory."""
    directory.mkdir()
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(
            [str(Path(sys.executable).with_name("scheduler")), "dev", "--partitions", "1"],
            env={**os.environ, "TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        yield process


@pytest.fixture
def modules() -> str:
    return "scheduler.examples"


def test_smoke_lag_and_topics(system: Any) -> None:
    environ = {"CELERY_BROKER_URL": system.kafka.url(system.topic), "CELERY_GROUP_ID": system.topic}
    for partitions in ((0, 1), (2, 3)):
        system.worker(*partitions).start()
    for worker in system.workers:
        worker.wait_ready()
    done = _scheduler("smoke", "--tasks", "42", "--json", **environ)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"]
    parts = result["partitions"]
    assert [part["done"] for part in parts] == [11, 11, 10, 10]
    assert {part["units"][0] for part in parts} == {"worker-0-1", "worker-2-3"}
    assert all(part["in_order"] and part["lag"] == 0 for part in parts)

    table = _scheduler("smoke", "--tasks", "8", **environ)
    assert table.returncode == 0, table.stderr
    assert "in order" in table.stdout

    lag = json.loads(_scheduler("lag", "--json", **environ).stdout)
    assert [row["lag"] for row in lag["lag"]] == [0, 0, 0, 0]
    counts = json.loads(_scheduler("topics", "--json", **environ).stdout)
    assert counts[system.topic] == 4
    assert "partition" in _scheduler("lag", **environ).stdout


def test_smoke_says_what_is_missing(system: Any) -> None:
    """The first partition that nobody works on."""
    done = _scheduler(
        "smoke",
        "--tasks",
        "8",
        "--timeout",
        "1",
        CELERY_BROKER_URL=system.kafka.url(system.topic),
        CELERY_GROUP_ID=system.topic,
    )
    assert done.returncode == 1
    assert f"2 of 2 tasks of partition 0 of {system.topic} have not run" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environ", "code", "says"),
    [
        ({"CELERY_BROKER_URL": ""}, 2, "CELERY_BROKER_URL is not set"),
        ({"CELERY_BROKER_URL": "amqp://x"}, 2, "does not start with kafka://"),
        (
            {"CELERY_BROKER_URL": "kafka://127.0.0.1:1//tasks", "CELERY_CONNECT_TIMEOUT": "1"},
            1,
            "answered within 1 seconds",
        ),
    ],
)
@pytest.mark.parametrize("command", ["lag", "topics", "smoke"])
def test_faults_are_one_sentence(
    command: str, environ: dict[str, str], code: int, says: str
) -> None:
    done = _scheduler(command, **environ)
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.startswith("scheduler: ")
    assert "Traceback" not in done.stderr


def test_dev_demo() -> None:
    done = _scheduler("dev", "--partitions", "2", "--demo", "--tasks", "20")
    assert done.returncode == 0, done.stderr
    assert "20 tasks in" in done.stdout
    assert done.stdout.count("yes") == 2
    for step in ("Starting Kafka", "Making the topics", "Starting 2 workers", "(2 of 2)"):
        assert step in done.stderr


def test_dev_ends_with_interrupt_and_leaves_nothing(tmp_path: Path) -> None:
    errors, directory = tmp_path / "errors", tmp_path / "system"
    with _dev(errors, directory) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0, errors.read_text()
    assert said == "1 worker ready. Your producers need:\n", errors.read_text()
    assert list(directory.iterdir()) == []
    assert not _processes_of(directory)


def test_dev_starts_a_killed_worker_again_and_keeps_the_logs_when_it_fails(tmp_path: Path) -> None:
    """First its worker is killed, then its broker."""
    errors, directory = tmp_path / "errors", tmp_path / "system"
    with _dev(errors, directory) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(_child(process.pid, "celery"), signal.SIGKILL)
        eventually(lambda: "worker-0 is ready again." in errors.read_text(), 120)
        os.kill(_child(process.pid, "kafka.Kafka"), signal.SIGKILL)
        assert process.wait(120) == 1, errors.read_text()
    said = errors.read_text()
    assert "worker-0 was ended by SIGKILL; it is started again." in said
    assert "The broker ended" in said
    assert "Traceback" not in said
    assert not list(directory.glob("local-kafka-*"))
    (kept,) = directory.glob("scheduler-dev-*")
    assert f"Logs are kept in {kept}." in said
    assert sorted(path.name for path in kept.iterdir()) == ["kafka1.log", "worker-0.log"]
    assert not _processes_of(directory)


@pytest.mark.parametrize("name", ["no_such_module:app", "no_such_module"])
def test_dev_refuses_an_app_that_is_not_there(name: str) -> None:
    done = _scheduler("dev", "--partitions", "1", "--app", name)
    assert done.returncode == 2
    assert "can't be imported" in done.stderr
    assert "--app" in done.stderr
    assert "CELERY_APP_MODULE" not in done.stderr
    assert "Traceback" not in done.stderr


def _child(parent: int, word: str) -> int:
    """The child of a process whose command line has a word."""
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in map(int, children.read_text().split()):
            if word in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"):
                return pid
    raise AssertionError(f"process {parent} has no child {word}")


def _processes_of(directory: Path) -> list[str]:
    """Command lines of processes that name a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command and str(os.getpid()) not in entry.parts:
            found.append(command)
    return found
