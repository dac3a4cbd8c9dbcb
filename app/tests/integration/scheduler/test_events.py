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
from http.client import HTTPException
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
def _command(office: System, *command: str) -> Iterator[Path]:
    """A celery command that runs until the block is left; gives the file of what it says."""
    environ = {
        **os.environ, "CELERY_BROKER_URL": office.kafka.url(TOPIC), "CELERY_GROUP_ID": TOPIC,
        "CELERY_APP_MODULE": office.modules, **office.environ,
    }  # fmt: skip
    said = office.directory / f"{command[0]}.out"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "celery", "-A", "scheduler", *command],
            env=environ, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield said
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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

        def state() -> State:
            found = State()
            for event in list(events):
                found.event(event)
            return found

        office.wait("the task's events", lambda: types() >= wanted)
        # A worker counts as alive for two heartbeats.
        office.wait(
            "both are alive", lambda: {w.hostname for w in state().alive_workers()} >= set(names)
        )
    task = state().tasks[result.id]
    assert (task.state, task.result) == ("SUCCESS", "3")


def test_a_camera_takes_snapshots(office: System, names: list[str]) -> None:
    shots: list[int] = []

    class Camera(Polaroid):
        def on_shutter(self, state: State) -> None:
            shots.append(len(state.workers))

    with _capture(office) as events:
        state = office.app.events.State()
        with Camera(state, app=office.app, freq=0.1) as camera:
            office.app.control.heartbeat()
            office.wait("both workers", lambda: {e["hostname"] for e in events} >= set(names))
            for event in list(events):
                state.event(event)
            camera.capture()
    assert shots[-1] >= 2


def test_events_dump(office: System) -> None:
    with _command(office, "events", "--dump") as said:
        office.wait("a heartbeat", lambda: "heartbeat" in said.read_text())
        office.app.tasks["announce.add"].apply_async((1, 2), partition=1)
        office.wait("the task", lambda: "task succeeded" in said.read_text())
    assert "Traceback" not in said.read_text()


def test_flower_unmodified(office: System, names: list[str]) -> None:
    port = free_port()

    def ask(path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return json.load(answer)
        except (OSError, HTTPException):
            return {}

    office.environ["FLOWER_UNAUTHENTICATED_API"] = "true"
    with _command(office, "flower", f"--port={port}", "--address=127.0.0.1"):

        def know_the_task() -> bool:
            workers = ask("/api/workers?refresh=1")  # what was answered within a second, so far
            tasks = [workers.get(name, {}).get("registered", ()) for name in names]
            return all("announce.add" in registered for registered in tasks)

        office.wait("both workers", know_the_task)
        result = office.app.tasks["announce.add"].apply_async((3, 4), partition=0)
        wanted = ("SUCCESS", names[0])

        def seen() -> bool:
            task = ask("/api/tasks").get(result.id, {})
            return (task.get("state"), task.get("worker")) == wanted

        office.wait("the task", seen)


def test_results_come_back_to_who_asked(office: System) -> None:
    add = office.app.tasks["announce.add"]
    first = add.apply_async((1, 2), partition=0)
    assert first.get(timeout=120) == 3
    # Sent together, gathered later: what arrived meanwhile was for this process alone.
    results = [add.apply_async((n, n), partition=n % 2) for n in range(20)]
    office.wait_done()
    assert [result.get(timeout=120) for result in results] == [2 * n for n in range(20)]
    gathered = group(add.s(n, 1).set(partition=n % 2) for n in range(6)).apply_async()
    assert gathered.get(timeout=120) == [n + 1 for n in range(6)]
    failed = office.app.tasks["announce.add"].apply_async(("a", 1), partition=0)
    with pytest.raises(TypeError):
        failed.get(timeout=120)
    assert failed.state == "FAILURE"


def test_each_thread_gets_its_own_results(office: System) -> None:
    add = office.app.tasks["announce.add"]
    got: dict[int, int] = {}

    def ask(number: int) -> None:
        got[number] = add.apply_async((number, 100), partition=number % 2).get(timeout=120)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
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
