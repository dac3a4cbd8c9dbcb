"""What systemd hears."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from scheduler.readiness import Readiness, notify, say_stopping, watchdog_interval


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        yield server


def _heard(server: socket.socket) -> list[str]:
    try:
        return server.recv(4096).decode().splitlines()
    except BlockingIOError:
        return []


def _consumer(positions: object) -> Mock:
    consumer = Mock()
    consumer.connection.transport.positions.return_value = positions
    return consumer


def test_ready_once_every_partition_is_positioned(systemd: socket.socket) -> None:
    consumer = _consumer(None)
    step = Readiness(consumer)
    step.start(consumer)
    assert _heard(systemd) == []
    (_delay, again, args), _ = consumer.timer.call_after.call_args
    consumer.connection.transport.positions.return_value = {("tasks", 4): 9, ("tasks", 0): 0}
    again(*args)
    assert _heard(systemd) == ["READY=1", "STATUS=Consuming tasks-0, tasks-4."]


def test_ready_in_a_group_with_no_partition_left(systemd: socket.socket) -> None:
    consumer = _consumer({})
    Readiness(consumer).start(consumer)
    ready, status = _heard(systemd)
    assert ready == "READY=1"
    assert status.startswith("STATUS=Consuming nothing: other workers")


def test_the_pulse_comes_from_the_event_loop(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    consumer = _consumer(None)
    Readiness(consumer).start(consumer)
    assert _heard(systemd) == ["WATCHDOG=1"]
    (interval, pulse, args), _ = consumer.timer.call_repeatedly.call_args
    assert interval == 15
    pulse(*args)
    assert _heard(systemd) == ["WATCHDOG=1"]


def test_the_watchdog_of_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_interval() is None


def test_stopping(systemd: socket.socket) -> None:
    say_stopping(sig="SIGTERM", how="Warm")
    assert _heard(systemd)[0] == "STOPPING=1"


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_a_service_manager_that_is_gone_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")
