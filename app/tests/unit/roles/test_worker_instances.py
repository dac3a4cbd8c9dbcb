"""The module that brings a host's workers to the wanted set, against a systemd of our own."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="session")
def instances(from_role: Callable[[str], ModuleType]) -> ModuleType:
    return from_role("celery_worker/library/celery_worker_instances.py")


@dataclass
class Systemd:
    """As much of systemd as the module talks to."""

    root: Path
    #: What a worker that starts now gets as its environment.
    deployment: str = "new"
    #: Units whose next starts fail, and how.
    broken: dict[str, str] = field(default_factory=dict)
    units: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    _pids: int = 100

    def __post_init__(self) -> None:
        for folder in ("wants", "state", "proc"):
            (self.root / folder).mkdir()

    def start(self, unit: str, deployment: str = "") -> None:
        self._pids += 1
        (self.root / "proc" / str(self._pids)).mkdir()
        (self.root / "proc" / str(self._pids) / "environ").write_text(
            f"A=1\0CELERY_DEPLOYMENT={deployment or self.deployment}\0"
        )
        (self.root / "wants" / unit).touch()
        name = unit.removeprefix("celery-worker@").removesuffix(".service")
        (self.root / "state" / name).mkdir(exist_ok=True)
        self.units[unit] = {"ActiveState": "active", "SubState": "running", "MainPID": self._pids}
        if unit in self.broken:
            self.units[unit] = {"ActiveState": self.broken[unit], "SubState": "failed"}

    def run(self, command: list[str]) -> tuple[int, str, str]:
        self.calls.append(command)
        match command:
            case ["systemctl", "list-units", *_, pattern]:
                found = fnmatch.filter(self.units, pattern)
                return 0, "".join(f"{unit} loaded active running A worker\n" for unit in found), ""
            case ["systemctl", "show", _, *units]:
                return 0, "\n\n".join(self._show(unit) for unit in units), ""
            case ["systemctl", "restart", "--no-block", *units]:
                for unit in units:
                    self.start(unit)
            case ["systemctl", "stop", *units]:
                for unit in units:
                    self.units.pop(unit, None)
            case ["systemctl", "enable", "--quiet", *units]:
                for unit in units:
                    (self.root / "wants" / unit).touch()
            case ["journalctl", *_]:
                return 0, "starting\nCELERY_ORDERING is 'bad'.\n", ""
        return 0, "", ""

    def _show(self, unit: str) -> str:
        properties = {
            "Id": unit,
            "ActiveState": "inactive",
            "SubState": "dead",
            "Result": "success",
            "ExecMainStatus": 0,
            "MainPID": 0,
            "NRestarts": 0,
            "NeedDaemonReload": "no",
        } | self.units.get(unit, {})
        return "\n".join(f"{name}={value}" for name, value in properties.items())


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    return Systemd(tmp_path)


@pytest.fixture
def converge(instances: ModuleType, systemd: Systemd) -> Callable[..., dict[str, Any]]:
    workers = instances.Workers(
        systemd.run,
        wants=systemd.root / "wants",
        state=systemd.root / "state",
        proc=systemd.root / "proc",
    )

    def call(
        phase: str, wanted: list[int], *, check: bool = False, **params: Any
    ) -> dict[str, Any]:
        defaults = {
            "phase": phase,
            "wanted": wanted,
            "deployment": "new",
            "restart_batch": 1,
            "start_seconds": 0,
            "stop_seconds": 0,
            "record": str(systemd.root / "placement.json"),
        }
        module = SimpleNamespace(params=defaults | params, check_mode=check)
        result: dict[str, Any] = instances.converge(module, workers)
        return result

    return call


def unit(partition: object) -> str:
    return f"celery-worker@{partition}.service"


def test_a_bare_host_starts_all_at_once(converge: Any, systemd: Systemd) -> None:
    result = converge("run", [10, 2])

    assert result["changed"]
    assert result["affected"] == ["2", "10"]
    assert ["systemctl", "restart", "--no-block", unit(2), unit(10)] in systemd.calls


def test_what_runs_as_wanted_is_left_alone(converge: Any, systemd: Systemd) -> None:
    systemd.start(unit(0))

    assert not converge("leave", [0])["changed"]
    assert not converge("run", [0])["changed"]
    assert {call[1] for call in systemd.calls} == {"list-units", "show"}


def test_another_deployment_is_restarted_a_few_at_a_time(converge: Any, systemd: Systemd) -> None:
    for partition in range(3):
        systemd.start(unit(partition), "old")

    assert converge("run", [0, 1, 2], restart_batch=2)["affected"] == ["0", "1", "2"]

    restarts = [call[3:] for call in systemd.calls if call[1] == "restart"]
    assert restarts == [[unit(0), unit(1)], [unit(2)]]


def test_what_is_not_wanted_is_stopped_disabled_and_cleaned(
    converge: Any, systemd: Systemd
) -> None:
    for partition in ("0", "1", "old"):
        systemd.start(unit(partition))
    (systemd.root / "state" / "7").mkdir()

    assert converge("leave", [1])["affected"] == ["0", "7", "old"]

    assert list(systemd.units) == [unit(1)]
    assert [path.name for path in (systemd.root / "wants").iterdir()] == [unit(1)]
    assert [path.name for path in (systemd.root / "state").iterdir()] == ["1"]


def test_a_check_says_what_would_change_and_changes_nothing(
    converge: Any, systemd: Systemd
) -> None:
    systemd.start(unit(0), "old")
    systemd.calls.clear()

    leaving = converge("leave", [1], check=True)
    running = converge("run", [0, 1], check=True)

    assert leaving["diff"] == {
        "before": f"{unit(0)}: runs another deployment\n",
        "after": "",
    }
    assert running["affected"] == ["0", "1"]
    assert {call[1] for call in systemd.calls} == {"list-units", "show"}


def test_a_worker_that_fails_is_named_with_its_journal(
    converge: Any, systemd: Systemd, instances: ModuleType
) -> None:
    systemd.broken[unit(1)] = "failed"

    with pytest.raises(instances.WorkerError, match=r"celery-worker@1\.service did not") as refused:
        converge("run", [0, 1])

    assert refused.value.details["journal"] == ["starting", "CELERY_ORDERING is 'bad'."]


def test_a_worker_that_is_never_ready_is_given_up(
    converge: Any, systemd: Systemd, instances: ModuleType
) -> None:
    systemd.broken[unit(0)] = "activating"

    with pytest.raises(instances.WorkerError, match="not within 0 s"):
        converge("run", [0])


def test_a_worker_of_another_deployment_is_not_ready(
    converge: Any, systemd: Systemd, instances: ModuleType
) -> None:
    systemd.deployment = "old"

    with pytest.raises(instances.WorkerError, match="not within 0 s"):
        converge("run", [0])


def test_the_record_of_the_last_run_is_told(converge: Any, systemd: Systemd) -> None:
    assert converge("look", [])["record"] == {}
    (systemd.root / "placement.json").write_text('{"hosts": {"a": [0]}}')
    assert converge("look", [])["record"] == {"hosts": {"a": [0]}}


def test_a_broken_record_is_refused(converge: Any, systemd: Systemd, instances: ModuleType) -> None:
    (systemd.root / "placement.json").write_text("{")

    with pytest.raises(instances.WorkerError, match="the record of the last run, cannot be read"):
        converge("look", [])
