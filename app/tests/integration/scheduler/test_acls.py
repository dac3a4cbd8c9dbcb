"""What docs/transport.md says has to be allowed is granted, no more, and everything works."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery
from click.testing import CliRunner
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from scheduler.cli import main
from scheduler.factory import create_app
from scheduler.local_broker import LocalKafka
from scheduler.settings import Settings
from tests.eventually import eventually
from tests.ledger import Ledger
from tests.listening import heard
from tests.secure_kafka import PASSWORDS

from .conftest import System

DOCS = Path(__file__).parents[4] / "docs" / "transport.md"
ROW = re.compile(
    r"^\| (producer|worker|operator) \| ([a-z ]+) \| `([^`]+)` \| ([A-Za-z, ]+) \|$", re.M
)

#: Every rule there is.
ALL = ACLFilter(
    None, None, ACLOperation.ANY, ACLPermissionType.ANY,
    ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)  # fmt: skip


def _documented(topic: str) -> list[ACL]:
    """Read the table, with a test's names in it."""
    rows = ROW.findall(DOCS.read_text())
    assert len(rows) > 20, "docs/transport.md has a table of ACLs"
    names = {
        "celery_tasks_dlq": f"{topic}-dlq", "celery_delay": f"{topic}-delay", "celery-group": topic
    }  # fmt: skip
    rules = []
    for user, kind, name, operations in rows:
        for default, ours in names.items():
            name = name.replace(default, ours)
        name = topic if name == "tasks" else name
        prefix = name.endswith("*")
        pattern = ResourcePattern(
            ResourceType[kind.upper().replace(" ", "_")],
            name.removesuffix("*"),
            ACLResourcePatternType.PREFIXED if prefix else ACLResourcePatternType.LITERAL,
        )
        for operation in operations.split(", "):
            word = re.sub(r"(?<!^)([A-Z])", r"_\1", operation).upper()
            rules.append(
                ACL(f"User:{user}", "*", ACLOperation[word], ACLPermissionType.ALLOW, pattern)
            )
    return rules


def _url(kafka: LocalKafka, user: str, topic: str) -> str:
    word = quote(PASSWORDS[user], safe="")
    return f"kafka://{user}:{word}@{kafka.addresses('CLEAR')[0]}//{topic}"


def _app(kafka: LocalKafka, user: str, system: System) -> Celery:
    app = create_app(
        Settings(
            broker_url=_url(kafka, user, system.topic), topic=system.topic, group_id=system.topic,
            app_modules=("tests.tasks",), dead_letter_topic=system.dead_letter_topic,
            delay_topic=f"{system.topic}-delay",
        )
    )  # fmt: skip
    app.loader.import_default_modules()
    return app


@pytest.fixture
def guarded(secure_broker: LocalKafka, topic_name: str, tmp_path: Path) -> Iterator[System]:
    """A system whose workers have what the documentation grants them."""
    secure_broker.create_topic(topic_name, 2)
    system = System(secure_broker, topic_name, tmp_path, "tests.tasks")
    system.environ = {
        "LEDGER_FILE": str(tmp_path / "ledger"),
        "CELERY_BROKER_URL": _url(secure_broker, "worker", topic_name),
        "CELERY_DELAY_TOPIC": f"{topic_name}-delay",
    }
    admin = secure_broker.admin()
    try:
        rules = _documented(topic_name)
        admin.create_acls(rules)
        # The broker heeds them a moment after the controller has stored them.
        eventually(lambda: set(rules) <= set(admin.describe_acls(ALL)[0]), what="the rules hold")
    finally:
        admin.close()
    yield system
    system.close()


@pytest.fixture
def operator(guarded: System, secure_broker: LocalKafka) -> Iterator[Celery]:
    """An operator's app."""
    app = _app(secure_broker, "operator", guarded)
    yield app
    app.close()


@pytest.fixture
def events(operator: Celery) -> Iterator[list[dict[str, Any]]]:
    """All events that an operator hears, as they come."""
    with heard(operator) as found:
        yield found


def test_each_has_what_it_needs(
    guarded: System, secure_broker: LocalKafka, operator: Celery, events: list[dict[str, Any]]
) -> None:
    ledger = Ledger(Path(guarded.environ["LEDGER_FILE"]))
    producer = _app(secure_broker, "producer", guarded)

    def ran(name: str, times: int) -> None:
        guarded.wait(
            f"{name} ran {times} times",
            lambda: sum(line[0] == name for line in ledger.lines()) == times,
            120,
        )

    def send(name: str, *args: Any, **options: Any) -> str:
        return str(producer.tasks[name].apply_async(args, **options).id)

    bound = guarded.worker(0, 1)
    bound.start()
    bound.wait_ready()
    mended = guarded.directory / "mended"
    send("tests.note")
    send("tests.note", countdown=2)
    send("tests.fails_until", str(mended))
    never = send("tests.note", countdown=3600)
    # A bound worker's queue is read by no other: each subcommand is answered by this one.
    assert len(operator.control.inspect(timeout=60, limit=1).ping()) == 1
    assert len(operator.control.inspect(timeout=60, limit=1).stats()) == 1
    (answer,) = operator.control.revoke(never, reply=True, timeout=60, limit=1)
    assert all("ok" in reply for reply in answer.values()), answer
    ran("note", 2)
    ran("fails_until", 2)  # once again after a countdown
    guarded.wait("a letter", lambda: len(guarded.dead_letters()) == 1)
    mended.touch()
    environ = {
        **os.environ, "CELERY_BROKER_URL": operator.conf.broker_url,
        "CELERY_GROUP_ID": guarded.topic, "CELERY_DEAD_LETTER_TOPIC": guarded.dead_letter_topic,
    }  # fmt: skip
    for command in (["list"], ["replay", "--all", "--yes"], ["history"]):
        done = CliRunner().invoke(main, ["dlq", *command], env=environ)
        assert done.exit_code == 0, (command, done.output)
    ran("fails_until", 3)
    wanted = {"task-sent", "task-succeeded", "worker-heartbeat"}
    guarded.wait("events", lambda: wanted <= {event["type"] for event in events})
    guarded.wait_done()
    assert bound.stop() == 0
    guarded.workers.remove(bound)
    shared = guarded.group_worker("shared", session_timeout=30)
    shared.start()
    shared.wait_ready()
    send("tests.note")
    send("tests.note", countdown=2)
    ran("note", 4)
    guarded.wait_done()
    for worker in (bound, shared):
        log = worker.log.read_text()
        refused = [line for line in log.splitlines() if re.search("uthoriz|grant", line)]
        assert not refused, refused
    producer.close()
