"""Bring the instances of celery-worker@.service on a host to the wanted set."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
module: celery_worker_instances
short_description: Workers of partitions, as instances of celery-worker@.service
description:
  - >-
    Compares the instances that live on the host (running, failed, enabled, or with a state directory)
    with the partitions that it shall run.
options:
  phase:
    description:
      - >-
        V(look) changes nothing. V(leave) stops, disables and cleans what is not wanted. V(run) starts what is wanted,
        and restarts, a few at a time, what runs with another deployment; it returns when all are ready.
    choices: [look, leave, run]
    required: true
    type: str
  wanted:
    description: The partitions of this host.
    type: list
    elements: int
    default: []
  deployment:
    description: What a running worker must have in its environment as CELERY_DEPLOYMENT.
    type: str
    default: ""
  restart_batch:
    description: How many running workers are restarted at a time.
    type: int
    default: 1
  start_seconds:
    description: How long a worker may take until it is ready.
    type: int
    default: 120
  stop_seconds:
    description: How long a worker may take to finish its tasks and stop.
    type: int
    default: 330
  record:
    description: The file with the placement of the last run.
    type: path
    default: /etc/celery/placement.json
"""

TEMPLATE = "celery-worker"
WANTS = Path("/etc/systemd/system/multi-user.target.wants")
STATE = Path("/var/lib/celery-worker")
PROC = Path("/proc")
PROPERTIES = "Id,ActiveState,SubState,Result,ExecMainStatus,MainPID,NRestarts,NeedDaemonReload"
#: A unit that systemd has restarted this often since we started it is not going to come up.
CRASHES = 3
JOURNAL_LINES = 25


@dataclass
class Instance:
    """An instance as systemd sees it."""

    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    exit_status: int = 0
    pid: int = 0
    restarts: int = 0
    stale: bool = False
    enabled: bool = False
    deployment: str = ""

    def ready(self, deployment: str) -> bool:
        """Tell whether it runs, has said that it is ready, and is of the deployment."""
        return self.active == "active" and self.deployment == deployment


class WorkerError(Exception):
    """What is asked for was not reached; the message is one sentence."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


#: Runs a command; returns its exit status, output and errors.
Run = Callable[[list[str]], tuple[int, str, str]]


class Workers:
    """The worker instances of this host."""

    def __init__(
        self, run: Run, *, wants: Path = WANTS, state: Path = STATE, proc: Path = PROC
    ) -> None:
        self._run = run
        self._wants = wants
        self._state = state
        self._proc = proc

    def live(self) -> dict[str, Instance]:
        """Find every instance that runs, has failed, is enabled, or left a state directory."""
        listed = self._systemctl("list-units", "--all", "--plain", "--no-legend", unit("*"))
        names = {name_of(line.split()[0]) for line in listed.splitlines() if line.strip()}
        names |= self._enabled()
        if self._state.is_dir():
            names |= {path.name for path in self._state.iterdir()}
        return self.show(names)

    def show(self, names: Iterable[str]) -> dict[str, Instance]:
        """Ask systemd about instances."""
        units = [unit(name) for name in in_order(names)]
        if not units:
            return {}
        enabled = self._enabled()
        shown = parse_show(self._systemctl("show", f"--property={PROPERTIES}", *units))
        for name, instance in shown.items():
            instance.enabled = name in enabled
            instance.deployment = deployment_of(instance.pid, self._proc)
        return shown

    def leave(self, names: list[str]) -> None:
        """Stop instances, all at once, and leave nothing of them."""
        units = [unit(name) for name in names]
        self._systemctl("stop", *units)
        # A unit whose template file is gone cannot be disabled by name, but its link can be removed.
        for name in names:
            (self._wants / unit(name)).unlink(missing_ok=True)
        self._systemctl("daemon-reload")
        self._run(["systemctl", "reset-failed", *units])  # fails for a unit that did not fail
        for name, instance in self.show(names).items():
            if instance.active not in ("inactive", "failed"):
                raise WorkerError(
                    f"{unit(name)} does not stop (it is {instance.active}/{instance.sub}): see "
                    f"'journalctl -u {unit(name)}', stop it by hand, and run again.",
                    journal=self._journal(name),
                )
        for name in names:
            if (self._state / name).exists():
                shutil.rmtree(self._state / name)

    def run(
        self, wanted: list[str], deployment: str, batch: int, start_seconds: int, stop_seconds: int
    ) -> None:
        """Start what does not run, then restart what runs with another deployment."""
        self._systemctl("daemon-reload")
        self._systemctl("enable", "--quiet", *[unit(name) for name in wanted])
        found = self.show(wanted)
        start = [name for name in wanted if found[name].active != "active"]
        running = [name for name in wanted if name not in start]
        restart = [name for name in running if not found[name].ready(deployment)]
        if start:
            self._run(["systemctl", "reset-failed", *[unit(name) for name in start]])
            self._bring_up(start, deployment, start_seconds)
        for first in range(0, len(restart), batch):
            some = restart[first : first + batch]
            self._bring_up(some, deployment, start_seconds + stop_seconds)

    def _bring_up(self, names: list[str], deployment: str, seconds: int) -> None:
        """Start or restart instances side by side and wait until all are ready."""
        since = int(time.time())
        # Starts what does not run, too, and has whatever waits for its next try begin anew.
        self._systemctl("restart", "--no-block", *[unit(name) for name in names])
        restarts = {name: it.restarts for name, it in self.show(names).items()}
        deadline = time.monotonic() + seconds
        while True:
            found = self.show(names)
            for name, instance in found.items():
                restarts[name] = min(restarts[name], instance.restarts)
                crashes = instance.restarts - restarts[name]
                if instance.active == "failed" or crashes >= CRASHES:
                    raise self._not_ready(name, instance, since, "it failed")
            waiting = [name for name, it in found.items() if not it.ready(deployment)]
            if not waiting:
                return
            if time.monotonic() > deadline:
                name = waiting[0]
                raise self._not_ready(name, found[name], since, f"not within {seconds} s")
            time.sleep(0.5)

    def _not_ready(self, name: str, it: Instance, since: int, why: str) -> WorkerError:
        return WorkerError(
            f"{unit(name)} did not become ready: {why} ({it.active}/{it.sub}, result {it.result}, "
            f"exit status {it.exit_status}); its journal is shown here and tells what to mend.",
            journal=self._journal(name, since),
        )

    def _journal(self, name: str, since: int = 0) -> list[str]:
        command = ["journalctl", "--no-pager", "--output=cat", f"--lines={JOURNAL_LINES}"]
        _, out, _ = self._run([*command, f"--since=@{since}", f"--unit={unit(name)}"])
        # systemd's word on every reload of a unit that serves cgroup v1 as well: nothing to mend.
        return [line for line in out.splitlines() if "Unit uses MemoryLimit=" not in line]

    def _enabled(self) -> set[str]:
        return {name_of(path.name) for path in self._wants.glob(unit("*"))}

    def _systemctl(self, *args: str) -> str:
        status, out, err = self._run(["systemctl", *args])
        if status:
            said = " ".join(err.split()) or f"exit status {status}"
            raise WorkerError(f"'systemctl {' '.join(args)}' failed: {said}")
        return out


def unit(name: str) -> str:
    """Name the unit of an instance."""
    return f"{TEMPLATE}@{name}.service"


def name_of(unit_name: str) -> str:
    """Name the instance of a unit."""
    return unit_name.removeprefix(f"{TEMPLATE}@").removesuffix(".service")


def in_order(names: Iterable[str]) -> list[str]:
    """Sort instances by their partitions, and what is no partition last."""
    return sorted(names, key=lambda name: (not name.isdecimal(), len(name), name))


def parse_show(text: str) -> dict[str, Instance]:
    """Read what 'systemctl show' says of one or more units."""
    found = {}
    for block in text.strip().split("\n\n"):
        its = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found[name_of(its["Id"])] = Instance(
            active=its["ActiveState"],
            sub=its["SubState"],
            result=its["Result"],
            exit_status=int(its["ExecMainStatus"]),
            pid=int(its["MainPID"]),
            restarts=int(its["NRestarts"]),
            stale=its["NeedDaemonReload"] == "yes",
        )
    return found


def deployment_of(pid: int, proc: Path) -> str:
    """Read from a running worker which deployment it was started with."""
    try:
        environment = (proc / str(pid) / "environ").read_bytes() if pid else b""
    except OSError:
        return ""
    for variable in environment.split(b"\0"):
        name, _, value = variable.partition(b"=")
        if name == b"CELERY_DEPLOYMENT":
            return value.decode(errors="replace")
    return ""


def recorded(path: Path) -> dict[str, Any]:
    """Read the placement of the last run; empty if there was none."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise WorkerError(
            f"{path}, the record of the last run, cannot be read ({error}): if no host was taken "
            "out of the inventory since, remove the file and run again."
        ) from None
    return record if isinstance(record, dict) else {}


def converge(module: AnsibleModule, workers: Workers) -> dict[str, Any]:
    """Do the phase; return what the module answers."""
    params = module.params
    live = workers.live()
    result: dict[str, Any] = {
        "changed": False,
        "instances": {name: asdict(instance) for name, instance in live.items()},
    }
    if params["phase"] == "look":
        return result | {"record": recorded(Path(params["record"]))}
    wanted = in_order({str(partition) for partition in params["wanted"]})
    if params["phase"] == "leave":
        affected = [name for name in live if name not in wanted]
        after = [name for name in live if name in wanted]
    else:
        missing = Instance()
        affected = [
            name
            for name in wanted
            if not (its := live.get(name, missing)).ready(params["deployment"])
            or not its.enabled
            or its.stale
        ]
        after = wanted
    if not affected:
        return result
    result["changed"] = True
    result["affected"] = affected
    result["diff"] = {
        "before": _listing({name: _state(it, params["deployment"]) for name, it in live.items()}),
        "after": _listing(
            {name: _state(live[name], "") for name in after}
            if params["phase"] == "leave"
            else dict.fromkeys(after, "runs this deployment")
        ),
    }
    if module.check_mode:
        return result
    if params["phase"] == "leave":
        workers.leave(affected)
    else:
        workers.run(
            wanted,
            params["deployment"],
            params["restart_batch"],
            params["start_seconds"],
            params["stop_seconds"],
        )
        result["instances"] = {name: asdict(it) for name, it in workers.live().items()}
    return result


def _state(instance: Instance, deployment: str) -> str:
    if instance.active == "active" and deployment:
        mine = instance.deployment == deployment
        return "runs this deployment" if mine else "runs another deployment"
    return f"{instance.active}/{instance.sub}"


def _listing(states: dict[str, str]) -> str:
    return "".join(f"{unit(name)}: {state}\n" for name, state in states.items())


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "choices": ["look", "leave", "run"], "required": True},
            "wanted": {"type": "list", "elements": "int", "default": []},
            "deployment": {"type": "str", "default": ""},
            "restart_batch": {"type": "int", "default": 1},
            "start_seconds": {"type": "int", "default": 120},
            "stop_seconds": {"type": "int", "default": 330},
            "record": {"type": "path", "default": "/etc/celery/placement.json"},
        },
        supports_check_mode=True,
    )
    try:
        result = converge(module, Workers(module.run_command))
    except WorkerError as error:
        module.fail_json(msg=str(error), **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
