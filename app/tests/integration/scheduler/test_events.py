"""Events, rpc:// results and broadcast tasks, with workers that are processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import group
from celery.events.snapshot import Polaroid
from celery.events.state import State

from scheduler.local_broker import LocalKafka
from scheduler.processes import free_port
from tests.eventually import eventually
from tests.ledger import Ledger
from tests.listening import heard

from .conftest import System

TOPIC = "announce"


@pytest.fixture(scope="module")
def office(kafka: LocalKafka, tmp_path_factory: Any) -> Iterator[System]:
    """Two workers of an app that broadcasts, sends events, and returns results to who asked."""
    kafka.create_topic(TOPIC, 2)
    directory = tmp_path_factory.mktemp("office")
    os.environ["ANNOUNCE_TOPIC"] = TOPIC
    system = System(kafka, TOPIC, directory, "tests.announce:app")
    system.app.conf.result_backend = "rpc://"
    system.environ.update(
        LEDGER_FILE=str(directory / "ledger"), CELERY_RESULT_BACKEND="rpc://", ANNOUNCE_TOPIC=TOPIC
    )
    for partition in (0, 1):
        system.worker(partition).start()
    for worker in system.workers:
        worker.wait_ready()
    yield system
    system.close()
    del os.environ["ANNOUNCE_TOPIC"]


@pytest.fixture
def ledger(office: System) -> Ledger:
    return Ledger(Path(office.environ["LEDGER_FILE"]))


@pytest.fixture(scope="module")
def names(office: System) -> list[str]:
    return [f"{worker.name}@{socket.gethostname()}" for worker in office.workers]


@contextmanager
def _command(office: System, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A celery command that runs until the block is left."""
    environ = {
        **os.environ, "CELERY_BROKER_URL": office.kafka.url(TOPIC), "CELERY_GROUP_ID": TOPIC,
        "CELERY_APP_MODULE": office.modules, **office.environ,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "celery", "-A", "scheduler", *command],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextmanager
def _capture(office: System) -> Iterator[list[dict[str, Any]]]:
    """Every event, once the first was heard."""
    with heard(office.app) as events:
        eventually(lambda: events, what="an event")
        yield events


def test_every_event_of_a_task_is_heard(office: System, names: list[str]) -> None:
    with _capture(office) as events:
        result = office.app.tasks["announce.add"].apply_async((1, 2), partition=0)
        wanted = {"task-sent", "task-received", "task-started", "task-succeeded"}

        def types() -> set[str]:
            return {event["type"] for event in events if event.get("uuid") == result.id}

        office.wait("the task's events", lambda: types() >= wanted)
        office.wait(
            "a heartbeat of each",
            lambda: (
                {e["hostname"] for e in events if e["type"] == "worker-heartbeat"} >= set(names)
            ),
        )
    state = State()
    for event in events:
        state.event(event)
    assert {worker.hostname for worker in state.alive_workers()} >= set(names)
    assert state.tasks[result.id].state == "SUCCESS"
    assert state.tasks[result.id].result == "3"


def test_a_camera_takes_snapshots(office: System, names: list[str]) -> None:
    shots: list[int] = []

    class Camera(Polaroid):
        def on_shutter(self, state: State) -> None:
            shots.append(len(state.workers))

    with _capture(office) as events:
        state = office.app.events.State()
        with Camera(state, app=office.app, freq=0.1) as camera:
            office.app.control.heartbeat()
            office.wait("both workers", lambda: len({e["hostname"] for e in events}) >= 2)
            for event in list(events):
                state.event(event)
            camera.capture()
    assert shots[-1] >= 2


def test_events_dump(office: System) -> None:
    with _command(office, "events", "--dump") as dump:
        lines: list[str] = []
        output = dump.stdout
        assert output is not None
        reading = threading.Thread(target=lambda: lines.extend(iter(output.readline, "")))
        reading.start()
        office.wait("a heartbeat", lambda: any("heartbeat" in line for line in lines))
        office.app.tasks["announce.add"].apply_async((1, 2), partition=1)
        office.wait("the task", lambda: any("task succeeded" in line for line in lines))
    reading.join(20)
    assert not any("Traceback" in line for line in lines)


def test_flower_unmodified(office: System, names: list[str]) -> None:
    port = free_port()

    def ask(path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return {}

    office.environ["FLOWER_UNAUTHENTICATED_API"] = "true"
    with _command(office, "flower", f"--port={port}", "--address=127.0.0.1"):
        office.wait("both workers", lambda: set(ask("/api/workers?refresh=1")) >= set(names))
        workers = ask("/api/workers?refresh=1")
        assert all("announce.add" in workers[name]["registered"] for name in names)
        result = office.app.tasks["announce.add"].apply_async((3, 4), partition=0)
        office.wait(
            "the task", lambda: ask("/api/tasks").get(result.id, {}).get("state") == "SUCCESS"
        )
        assert ask("/api/tasks")[result.id]["worker"] == names[0]


def test_results_come_back_to_who_asked(office: System) -> None:
    add = office.app.tasks["announce.add"]
    first = add.apply_async((1, 2), partition=0)
    assert first.get(timeout=30) == 3
    # Sent together, gathered later: what arrived meanwhile was for this process alone.
    results = [add.apply_async((n, n), partition=n % 2) for n in range(20)]
    office.wait_done()
    assert [result.get(timeout=30) for result in results] == [2 * n for n in range(20)]
    gathered = group(add.s(n, 1).set(partition=n % 2) for n in range(6)).apply_async()
    assert gathered.get(timeout=30) == [n + 1 for n in range(6)]
    failed = office.app.tasks["announce.add"].apply_async(("a", 1), partition=0)
    with pytest.raises(TypeError):
        failed.get(timeout=30)
    assert failed.state == "FAILURE"


def test_each_thread_gets_its_own_results(office: System) -> None:
    add = office.app.tasks["announce.add"]
    got: dict[int, int] = {}

    def ask(number: int) -> None:
        got[number] = add.apply_async((number, 100), partition=number % 2).get(timeout=30)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == {number: number + 100 for number in range(4)}


def test_a_broadcast_task_runs_once_on_each_worker(office: System, ledger: Ledger) -> None:
    hear = office.app.tasks["announce.hear"]
    for number in range(5):
        hear.delay(number)

    def heard() -> list[tuple[str, str]]:
        return [(line[1], line[2]) for line in ledger.lines() if line[0] == "heard"]

    office.wait("ten runs", lambda: len(heard()) >= 10)
    assert len(set(heard())) == len(heard()) == 10
    assert {int(parent) for _, parent in heard()} == {worker.pid for worker in office.workers}


def test_a_broadcast_task_that_fails_is_a_dead_letter_of_each_worker(
    office: System, kafka_value: Callable[[Any, str], str]
) -> None:
    before = len(office.dead_letters())
    office.app.tasks["announce.refuse"].delay()
    office.wait("two letters", lambda: len(office.dead_letters()) == before + 2)
    letters = office.dead_letters()[before:]
    assert {kafka_value(letter, "dlq-topic") for letter in letters} == {"announcements.exchange"}
    assert {kafka_value(letter, "dlq-exception") for letter in letters} == {"ValueError"}
