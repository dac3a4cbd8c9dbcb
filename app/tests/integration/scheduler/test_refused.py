"""Who is not let in ends at once, as systemd must see it; and a password is shown nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from scheduler import processes
from scheduler.local_broker import LocalKafka
from scheduler.preflight import EX_CONFIG
from tests.eventually import eventually
from tests.listening import heard
from tests.secure_kafka import PASSWORDS

from .plain_worker import Plain

#: Seconds in which a refusal is told, however busy the machine; brokers that don't answer are
#: waited for much longer.
SOON = 150
PATIENCE = "3600"

#: Listener, password of alice's, and what is said.
MISTAKES = {
    "wrong password": ("CLEAR", "not-hers", "refuses the user 'alice'"),
    "untrusted certificate": ("TLS", PASSWORDS["alice"], "is not trusted"),
}
SCHEDULER = str(Path(sys.executable).with_name("scheduler"))
COMMANDS = {
    "worker": [sys.executable, "-W", "ignore", "-m", "celery", "-A", "scheduler", "worker"],
    "check": [SCHEDULER, "check"],
    "smoke": [SCHEDULER, "smoke"],
    "dlq list": [SCHEDULER, "dlq", "list"],
    "exporter": [SCHEDULER, "exporter", "--port", "0"],
}


def _url(kafka: LocalKafka, listener: str, password: str) -> str:
    return f"kafka://alice:{quote(password, safe='')}@{kafka.addresses(listener)[0]}//tasks"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_who_is_refused_ends_with_78_and_a_sentence(
    secure_broker: LocalKafka, mistake: str, tmp_path: Path
) -> None:
    listener, password, said = MISTAKES[mistake]
    environ = {
        **os.environ, "CELERY_BROKER_URL": _url(secure_broker, listener, password),
        "CELERY_CONNECT_TIMEOUT": PATIENCE, "COLUMNS": "500",
    }  # fmt: skip
    if listener == "TLS":
        environ["CELERY_BROKER_SECURITY_PROTOCOL"] = "SASL_SSL"
    started = {
        name: subprocess.Popen(
            command, env=environ, cwd=tmp_path, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=processes.dies_with_parent(),
        )
        for name, command in COMMANDS.items()
    }  # fmt: skip
    try:
        deadline = time.monotonic() + SOON
        for name, process in started.items():
            output, _ = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
            assert process.returncode == EX_CONFIG, (name, output)
            # Kafka's client says so, and truly, of SCRAM without TLS.
            lines = [line for line in output.splitlines() if "in the clear" not in line]
            assert len(lines) == 1, (name, output)
            assert lines[0].startswith("scheduler: "), (name, output)
            assert said in lines[0], (name, output)
    finally:
        for process in started.values():
            process.kill()
            process.wait()


#: Where the password stands: URL, or options.
PLACES = ("url", "options")


@pytest.fixture(params=PLACES)
def plain(
    request: pytest.FixtureRequest, secure_broker: LocalKafka, topic_name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Plain]:  # fmt: skip
    """A worker that logs all there is; PLAIN sends the password itself."""
    monkeypatch.setenv("PLAIN_KAFKA_LEVEL", "DEBUG")
    secure_broker.create_topic(topic_name, 2)
    secure_broker.create_topic(f"{topic_name}-dlq", 1)
    address = f"{secure_broker.addresses('CLEAR')[0]}//{topic_name}"
    options = {"sasl_mechanism": "PLAIN", "security_protocol": "SASL_PLAINTEXT"}
    if request.param == "url":
        url = f"kafka://alice:{quote(PASSWORDS['alice'], safe='')}@{address}"
    else:
        url = f"kafka://{address}"
        options |= {"sasl_username": "alice", "sasl_password": PASSWORDS["alice"]}
    made = Plain(
        secure_broker, tmp_path, "rpc://", topic_name, options=options, broker=url,
        settings={"task_send_sent_event": True},
    )  # fmt: skip
    made.start("-l", "DEBUG", "-E", "-c", "2", "-n", f"{topic_name}@%h")
    yield made
    made.stop()


@pytest.fixture
def events(plain: Plain) -> Iterator[list[dict[str, Any]]]:
    """All events, as they come."""
    with heard(plain.app) as found:
        yield found


def _command_lines() -> str:
    """What everybody may read of every process."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for file in ("cmdline", "comm"):
            try:
                found.append((process / file).read_text(errors="replace"))
            except OSError:
                continue
    return "\n".join(found)


def test_a_password_is_shown_nowhere(plain: Plain, events: list[dict[str, Any]]) -> None:
    word = PASSWORDS["alice"]
    name = f"{plain.topic}@"
    inspect = plain.app.control.inspect(timeout=30, limit=1, pattern=f"{name}*", matcher="glob")
    eventually(inspect.ping, 120, what="the worker answers")
    # A task whose log shows whatever a request shows, and one that fails.
    assert plain.send("add", 1, 1).get(timeout=120) == 2
    plain.send("add", 1, "x")
    wanted = {"task-failed", "worker-heartbeat"}
    eventually(lambda: wanted <= {event["type"] for event in events}, what="events")
    answers: dict[str, Any] = {
        what: getattr(inspect, what)()
        for what in (
            "stats", "report", "active_queues", "registered", "active", "reserved", "scheduled",
            "revoked", "clock",
        )
    }  # fmt: skip
    answers["conf"] = inspect.conf(with_defaults=True)
    answers["conf short"] = inspect.conf()
    answers["query_task"] = inspect.query_task("none")
    answers["memdump"] = inspect.memdump()
    assert all(answer is not None for answer in answers.values()), answers
    lines = _command_lines()
    assert "tests.plain" in lines
    report = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "celery", "-A", "tests.plain", "report"],
        env=plain.environ, cwd=plain.directory, check=True, timeout=120,
        capture_output=True, text=True,
    )  # fmt: skip
    assert "transport:kafka" in report.stdout
    log = plain.log.read_text()
    assert "DEBUG" in log
    assert "(SASL)" in log, "the client's own log must have seen a login"
    shown = {
        **{what: repr(answer) for what, answer in answers.items()},
        "events": repr(events), "command lines": lines, "log": log,
        "report": report.stdout + report.stderr,
    }  # fmt: skip
    for what, text in shown.items():
        assert word not in text, what
        assert quote(word, safe="") not in text, what
        assert repr(word)[1:-1] not in text, what
