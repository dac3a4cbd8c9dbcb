"""A worker process on this machine, started as systemd would: it says when it is ready."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from scheduler import processes

__all__ = ["LocalWorker", "LocalWorkerError"]


class LocalWorkerError(Exception):
    """A worker ended or did not become ready; the message shows the end of its log."""


class LocalWorker:
    """One `celery -A scheduler worker` of concurrency 1.

    Args:
        broker_url: What it consumes from.
        partitions: The partitions bound to it; none: it shares them with its group.
        directory: Where its log and its journal lie.
        environ: More of its environment.
        name: What it is called in tables and logs.
        arguments: More of its command line.
    """

    def __init__(
        self,
        broker_url: str,
        *partitions: int,
        directory: Path,
        environ: Mapping[str, str] | None = None,
        name: str | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.name = name or f"worker-{'-'.join(map(str, partitions)) or 'group'}"
        self.log = directory / f"{self.name}.log"
        self.state = directory / f"{self.name}.state"
        # In the abstract namespace: a path may hold 107 characters at most.
        self._socket = f"scheduler-{self.name}-{uuid.uuid4().hex}"
        self._environ = {
            **os.environ,
            "CELERY_BROKER_URL": broker_url,
            "CELERY_UNIT": self.name,
            "CUSTOM_PARTITION": ",".join(map(str, partitions)),
            **({"CELERY_ORDERING": "partition"} if partitions else {}),
            "STATE_DIRECTORY": str(self.state),
            "NOTIFY_SOCKET": f"@{self._socket}",
            **(environ or {}),
        }
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._notify: socket.socket | None = None
        self.ready = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The main process; also the id of its process group."""
        if self._process is None:
            raise LocalWorkerError(f"{self.name} was not started.")
        return self._process.pid

    def start(self) -> None:
        """Start the process; `wait_ready` waits until it consumes its partitions."""
        self.state.mkdir(parents=True, exist_ok=True)
        self._close()
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.setblocking(False)
        self._notify.bind(f"\0{self._socket}")
        self.ready = False
        # -W: Celery warns of root, which a container or a demo may well be.
        command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "scheduler", "worker"]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [*command, "-n", f"{self.name}@%h", "-c", "1", "-l", "INFO", *self._arguments],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # ^C in the terminal is for the one who supervises
                preexec_fn=processes.dies_with_parent(),
            )

    def look(self) -> None:
        """Note whether it is ready by now; raise `LocalWorkerError` if it has ended."""
        if not self.running:
            code = self._process.returncode if self._process else None
            raise LocalWorkerError(f"{self.name} ended with code {code}:\n{self.log_tail()}")
        try:
            while self._notify is not None:
                self.ready |= b"READY=1" in self._notify.recv(4096)
        except BlockingIOError:
            pass

    def wait_ready(self, timeout: float = 120) -> None:
        """Wait until it consumes its partitions."""
        deadline = time.monotonic() + timeout
        while not self.ready:
            self.look()
            if time.monotonic() > deadline:
                raise LocalWorkerError(
                    f"{self.name} was not ready within {timeout:g} s:\n{self.log_tail()}"
                )
            time.sleep(0.05)

    def wait(self, timeout: float) -> int:
        """Wait for its end; return its exit code."""
        if self._process is None:
            raise LocalWorkerError(f"{self.name} was not started.")
        return self._process.wait(timeout)

    def terminate(self, how: int = signal.SIGTERM) -> None:
        """Ask it to finish what it runs and end; `stop` waits for that."""
        if self._process is not None and self.running:
            self._process.send_signal(how)

    def stop(self, patience: float = 120) -> int | None:
        """End it in order, or kill it after `patience` seconds; return its exit code."""
        code = None
        if self._process is not None:
            code = processes.stop(self._process, patience)
            self._sweep()
        self._close()
        return code

    def kill(self) -> None:
        """Kill it and its children at once, as systemd does after the main process was killed."""
        if self._process is not None and self.running:
            self._sweep()
            self._process.wait()

    def log_tail(self, lines: int = 20) -> str:
        return processes.tail(self.log, lines)

    def _sweep(self) -> None:
        """Kill its process group, and wait until nothing of that runs: not the last line of a child either."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            while processes.group_runs(self._process.pid):
                time.sleep(0.01)

    def _close(self) -> None:
        if self._notify is not None:
            self._notify.close()
            self._notify = None
