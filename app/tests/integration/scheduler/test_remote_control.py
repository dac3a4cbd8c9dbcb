"""Remote control over Kafka: every subcommand of inspect and control, each worker answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from scheduler.local_broker import LocalKafka
from tests.eventually import eventually
from tests.ledger import Ledger

from .conftest import System

MODULES = "tests.tasks,tests.ledger"
#: Seconds that a reply may take; nobody waits for so long where it is known who answers.
PATIENCE = 60


@pytest.fixture(scope="module")
def fleet(kafka: LocalKafka, tmp_path_factory: Any) -> Iterator[System]:
    """Two workers, each bound to a partition of its own."""
    kafka.create_topic("fleet", 5)
    directory = tmp_path_factory.mktemp("fleet")
    system = System(kafka, "fleet", directory, MODULES)
    system.environ["LEDGER_FILE"] = str(directory / "ledger")
    for partition in (0, 1):
        system.worker(partition).start()
    for worker in system.workers:
        worker.wait_ready()
    yield system
    system.close()


@pytest.fixture
def ledger(fleet: System) -> Ledger:
    return Ledger(Path(fleet.environ["LEDGER_FILE"]))


@pytest.fixture(scope="module")
def names(fleet: System) -> list[str]:
    return [f"{worker.name}@{socket.gethostname()}" for worker in fleet.workers]


def _replies(answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: reply for answer in answers for name, reply in answer.items()}


class Remote:
    """Asks both workers, and insists on a reply from each."""

    def __init__(self, system: System, names: list[str]) -> None:
        self._control = system.app.control
        self._names = names

    def inspect(self, command: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        asked = self._control.inspect(destination=self._names, timeout=PATIENCE)
        replies = getattr(asked, command)(*args, **kwargs)
        assert sorted(replies) == sorted(self._names)
        return dict(replies)

    def control(self, command: str, to: list[str] | None = None, **arguments: Any) -> list[Any]:
        to = to or self._names
        answers = self._control.broadcast(
            command, arguments=arguments, destination=to, reply=True, timeout=PATIENCE
        )
        replies = _replies(answers)
        assert sorted(replies) == sorted(to)
        return list(replies.values())


@pytest.fixture
def remote(fleet: System, names: list[str]) -> Remote:
    return Remote(fleet, names)


def _celery(system: System, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ, "CELERY_BROKER_URL": system.kafka.url("fleet"), "CELERY_GROUP_ID": "fleet",
        "CELERY_APP_MODULE": MODULES, **system.environ,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "celery", "-A", "scheduler", *command],
        env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_inspect_in_every_subcommand(remote: Remote) -> None:
    """Those of Celery's panel."""
    assert all(reply == {"ok": "pong"} for reply in remote.inspect("ping").values())
    for command in ("active", "reserved", "scheduled"):
        assert all(reply == [] for reply in remote.inspect(command).values())
    assert all(reply["pool"]["processes"] for reply in remote.inspect("stats").values())
    assert all("transport:kafka" in reply["ok"] for reply in remote.inspect("report").values())
    assert all("tests.note" in reply for reply in remote.inspect("registered").values())
    assert all(reply[0]["name"] == "fleet" for reply in remote.inspect("active_queues").values())
    conf = remote.inspect("conf", with_defaults=True)
    assert all(reply["task_acks_late"] for reply in conf.values())
    assert all(reply["clock"] for reply in remote.inspect("clock").values())
    assert all(reply == {} for reply in remote.inspect("query_task", "no-such").values())
    remote.inspect("memsample")
    remote.inspect("memdump")
    # It needs a library of that name, and says so.
    assert all("objgraph" in reply["error"] for reply in remote.inspect("objgraph").values())
    assert all(reply["clock"] for reply in remote.inspect("hello", "me@here").values())


def test_all_that_hear_answer_where_none_is_named(fleet: System, names: list[str]) -> None:
    replies = fleet.app.control.inspect(timeout=PATIENCE, limit=2).ping()
    assert sorted(replies) == sorted(names)
    asked = {"pattern": "*-1@*", "matcher": "glob", "limit": 1}
    assert list(fleet.app.control.inspect(timeout=PATIENCE, **asked).ping()) == [names[1]]


def test_rates_times_and_events(remote: Remote) -> None:
    for reply in remote.control("rate_limit", task_name="tests.note", rate_limit="100/s"):
        assert "new rate limit set" in reply["ok"]
    for reply in remote.control("rate_limit", task_name="tests.note", rate_limit="0"):
        assert "ok" in reply
    for reply in remote.control("time_limit", task_name="tests.note", hard=60, soft=30):
        assert "time limits set" in reply["ok"]
    for reply in remote.control("rate_limit", task_name="no.such", rate_limit="1/s"):
        assert "unknown task" in reply["error"]
    for command in ("enable_events", "disable_events"):
        assert all("ok" in reply for reply in remote.control(command))


def test_pools_grow_and_shrink(fleet: System, remote: Remote) -> None:
    def processes(number: int) -> bool:
        stats = remote.inspect("stats").values()
        return all(len(reply["pool"]["processes"]) == number for reply in stats)

    assert all("will grow" in reply["ok"] for reply in remote.control("pool_grow", n=1))
    fleet.wait("a second process", lambda: processes(2))
    assert all("will shrink" in reply["ok"] for reply in remote.control("pool_shrink", n=1))
    for reply in remote.control("autoscale", max=2, min=1):
        assert "Autoscale not enabled" in reply["error"]
    for reply in remote.control("pool_restart"):
        assert "Pool restarts not enabled" in reply["error"]


def test_the_command_purge_empties_the_queue(fleet: System) -> None:
    """Of partitions that nobody consumes, it says how many tasks there were."""
    for number in range(6):
        fleet.send("tests.note", partition=2 + number % 3)
    done = _celery(fleet, "purge", "-f")
    assert done.returncode == 0, done.stderr
    assert "Purged 6 messages from 1 known task queue." in done.stdout
    assert "No messages purged" in _celery(fleet, "purge", "-f").stdout


def test_queues_come_and_go_at_run_time(
    fleet: System, remote: Remote, names: list[str], ledger: Ledger
) -> None:
    fleet.kafka.create_topic("fleet-more", 4)
    more: dict[str, Any] = {"queue": "fleet-more"}
    assert all("add consumer" in reply["ok"] for reply in remote.control("add_consumer", **more))
    queues = remote.inspect("active_queues")
    assert all({q["name"] for q in reply} == {"fleet", "fleet-more"} for reply in queues.values())
    before = len(ledger.lines())
    fleet.send("tests.note", queue="fleet-more", partition=1)
    fleet.wait("a task of the new queue", lambda: len(ledger.lines()) == before + 1)
    for _ in range(2):
        assert all("no longer" in r["ok"] for r in remote.control("cancel_consumer", **more))
        fleet.send("tests.note", queue="fleet-more", partition=0)
        assert all("ok" in reply for reply in remote.control("add_consumer", **more))
    fleet.wait("both tasks", lambda: len(ledger.lines()) == before + 3)
    remote.control("cancel_consumer", **more)


def test_a_task_is_seen_revoked_and_terminated(
    fleet: System, remote: Remote, names: list[str], ledger: Ledger
) -> None:
    def on(first: bool) -> str:
        task = fleet.app.signature("ledger.entry", (0, 60.0 if first else 0.0))
        return str(task.apply_async(partition=0).id)

    def started() -> int:
        return sum(line[0] == "start" for line in ledger.lines())

    begun = started()
    running, revoked = on(True), on(False)
    fleet.wait("a start", lambda: started() == begun + 1)
    # It says so itself before its worker's main process has heard from its child that it began.
    fleet.wait(
        "it is seen", lambda: [t["id"] for t in remote.inspect("active")[names[0]]] == [running]
    )
    assert remote.inspect("query_task", running)[names[0]][running][0] == "active"
    fleet.app.control.revoke(revoked)
    fleet.wait("both know", lambda: all(revoked in r for r in remote.inspect("revoked").values()))
    fleet.app.control.revoke(running, terminate=True, signal="SIGKILL")
    fleet.wait("the end", lambda: not remote.inspect("active")[names[0]])
    fleet.wait_done()
    assert started() == begun + 1


def test_a_task_is_revoked_by_its_stamp_and_one_is_terminated_by_its_id(
    fleet: System, remote: Remote, names: list[str], ledger: Ledger
) -> None:
    replies = remote.control("revoke_by_stamped_headers", headers={"campaign": "spring"})
    assert all("revoked" in reply["ok"] for reply in replies)
    begun = len(ledger.lines())
    stamped = fleet.app.signature("tests.note")
    stamped.stamp(campaign="spring")
    revoked = stamped.apply_async(partition=0).id
    running = fleet.app.signature("ledger.entry", (0, 60.0)).apply_async(partition=0).id
    fleet.wait("the one behind it", lambda: len(ledger.lines()) == begun + 1)
    assert ledger.lines()[-1][0] == "start"
    assert f"Discarding revoked task: tests.note[{revoked}]" in fleet.workers[0].log.read_text()
    replies = remote.control("terminate", signal="SIGKILL", task_id=running)
    assert all("terminate" in reply["ok"] for reply in replies)
    fleet.wait("the end", lambda: not remote.inspect("active")[names[0]])
    fleet.wait_done()
    assert len(ledger.lines()) == begun + 1


def test_elections_and_heartbeats(fleet: System, remote: Remote, ledger: Ledger) -> None:
    """One of the workers wins, and that one alone publishes the task."""
    action = fleet.app.signature("tests.note", options={"partition": 1})
    remote.inspect("ping")

    def winners() -> int:
        name = f"election-{uuid.uuid4().hex[:8]}"
        before = len(ledger.lines())

        def said(sentence: str) -> int:
            return sum(worker.log.read_text().count(sentence) for worker in fleet.workers)

        fleet.app.control.election(name, "task", dict(action))
        won, lost = f"I won the election '{name}'", f"elected for '{name}'"
        fleet.wait("both have decided", lambda: said(won) + said(lost) == 2)
        fleet.wait("the elected task", lambda: len(ledger.lines()) == before + said(won))
        fleet.wait_done()
        assert len(ledger.lines()) == before + said(won)
        return said(won)

    # Celery's workers decide by what they have heard until then: one that heard late may win too.
    eventually(lambda: winners() == 1, what="both agree")
    fleet.app.control.heartbeat()


def test_the_command_line(fleet: System, names: list[str]) -> None:
    both = ("-t", str(PATIENCE), "-d", ",".join(names))
    shown = _celery(fleet, "inspect", "ping", "--json", *both)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout) == {name: {"ok": "pong"} for name in names}
    assert shown.stderr == ""
    status = _celery(fleet, "status", *both)
    assert status.returncode == 0, status.stderr
    assert "2 nodes online" in status.stdout
    assert status.stderr == ""
    nobody = _celery(fleet, "inspect", "ping", "-d", "nobody@here")
    assert nobody.returncode == 69
    assert "No nodes replied" in nobody.stderr


def test_a_request_from_another_language_needs_no_header(fleet: System, remote: Remote) -> None:
    producer = KafkaProducer(bootstrap_servers=fleet.kafka.bootstrap)
    request = {"method": "revoke", "arguments": {"task_id": "from-kcat"}, "destination": None}
    for value in (b"\xff no request", json.dumps(request).encode()):
        producer.send("celery.pidbox", value, partition=0).get(30)
    producer.close()
    fleet.wait(
        "both know", lambda: all("from-kcat" in r for r in remote.inspect("revoked").values())
    )


def test_every_pool_hears(fleet: System) -> None:
    pools = ("solo", "threads", "gevent")
    modules = ("solo", "thread", "gevent")
    for partition, pool in enumerate(pools, 2):
        fleet.arguments[:] = ["-P", pool, "--without-mingle"]
        fleet.worker(partition).start()
    fleet.arguments.clear()
    started = fleet.workers[2:]
    for worker in started:
        worker.wait_ready()
    asked = [f"{worker.name}@{socket.gethostname()}" for worker in started]
    stats = fleet.app.control.inspect(destination=asked, timeout=PATIENCE).stats()
    shown = [stats[name]["pool"]["implementation"] for name in asked]
    assert [text.split(":")[0] for text in shown] == [f"celery.concurrency.{m}" for m in modules]
    for worker in started:
        worker.terminate()
    assert [worker.wait(120) for worker in started] == [0, 0, 0]
    del fleet.workers[2:]


def test_a_reply_comes_soon(remote: Remote) -> None:
    """Not a second, as a polling transport would take: the median of ten is far below."""

    def median() -> float:
        took = []
        for _ in range(10):
            begun = time.monotonic()
            remote.inspect("clock")
            took.append(time.monotonic() - begun)
        return sorted(took)[5]

    # As soon as the machine is not busy with something else.
    eventually(lambda: median() < 1.0, what="a reply comes soon")


def test_a_worker_learns_from_its_neighbours_what_is_revoked(
    fleet: System, remote: Remote, names: list[str]
) -> None:
    """Mingle waits one second for its neighbours, which a busy machine may not grant it."""
    fleet.app.control.revoke("0" * 8)
    fleet.wait("both know", lambda: all("0" * 8 in r for r in remote.inspect("revoked").values()))
    newcomer = fleet.worker(2)
    name = f"{newcomer.name}@{socket.gethostname()}"

    def learns() -> bool:
        newcomer.start()
        newcomer.wait_ready()
        if "mingle: sync with" in newcomer.log.read_text():
            return True
        newcomer.stop()
        return False

    eventually(learns, 240, what="a neighbour answers within a second")
    known = fleet.app.control.inspect(destination=[name], timeout=PATIENCE).revoked()
    assert "0" * 8 in known[name]
    fleet.app.control.shutdown(destination=[name])
    assert newcomer.wait(120) == 0
    fleet.workers.remove(newcomer)
    assert sorted(fleet.app.control.inspect(timeout=PATIENCE, limit=2).ping()) == sorted(names)
