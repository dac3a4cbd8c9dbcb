"""Child processes that end when their parent does, however that ended."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = [
    "STILL",
    "dies_with_parent",
    "free_port",
    "group_runs",
    "listens",
    "states",
    "stop",
    "tail",
]

#: From <linux/prctl.h>: the signal a process gets when the thread that started it is gone.
PR_SET_PDEATHSIG = 1

#: States of a process that does nothing more, or not until it is told to: stopped, dead, or not yet taken note of.
STILL = "TtXxZ"

#: Loaded here, not in the child: between fork and exec nothing may take a lock.
_libc = ctypes.CDLL(None, use_errno=True)


def dies_with_parent(sig: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """Return a `preexec_fn` that has the kernel send `sig` to the child once its parent is gone."""
    parent = os.getpid()

    def ask() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(sig), 0, 0, 0)
        if os.getppid() != parent:  # it went between fork and here
            os._exit(1)

    return ask


def stop(process: subprocess.Popen[bytes], patience: float) -> int:
    """Ask `process` to end, wait `patience` seconds, kill it if it is still there; return its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def states(group: int) -> list[tuple[int, str]]:
    """Return the processes of a group, each with its state's letter: the liveliest of its threads'."""
    found: list[tuple[int, str]] = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if os.getpgid(int(process.name)) != group:
                continue
            each = [
                stat.read_text().rpartition(")")[2].split()[0]
                for stat in process.glob("task/*/stat")
            ]
            lively = [state for state in each if state not in STILL]
            found.append((int(process.name), (lively or each or ["X"])[0]))
    return found


def group_runs(group: int) -> bool:
    """Return whether a process of a process group runs; one that waits to be buried doesn't."""
    return any(state not in "ZX" for _, state in states(group))


def free_port() -> int:
    """Return a loopback port that stays free for whoever is told of it, until this process ends.

    The kernel gives it to nobody who asks for any port, in no process. A server may listen on it, as often as it likes:
    it must say SO_REUSEADDR, as servers do. While none does, connections are refused.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = int(holder.getsockname()[1])
        holder.detach()  # stays bound, and nobody closes it
    return port


def listens(port: int) -> bool:
    """Return whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log file, or a remark where there is none."""
    try:
        content = path.read_text(errors="replace").splitlines()
    except OSError:
        return f"({path} was never written)"
    return "\n".join(content[-lines:]) or f"({path} is empty)"
