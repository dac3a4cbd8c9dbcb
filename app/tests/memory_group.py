"""A memory cgroup, as systemd's MemoryMax makes one: the kernel kills whoever needs more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from tests.eventually import eventually

__all__ = ["MemoryGroup", "memory_group"]

ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """Processes that together may have so much memory.

    Attributes:
        real: Whether there is a cgroup; who may not make one has a group that limits nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.real = path is not None

    def add(self, *pids: int) -> None:
        """Take processes in, with all that they start from now on."""
        if self._path is not None:
            for pid in pids:
                (self._path / "cgroup.procs").write_text(str(pid))

    def kills(self) -> int:
        """How often the kernel has killed one of them for want of memory."""
        assert self._path is not None
        for name in ("memory.oom_control", "memory.events"):
            with suppress(FileNotFoundError):
                facts = dict(line.split() for line in (self._path / name).read_text().splitlines())
                return int(facts["oom_kill"])
        raise AssertionError(f"{self._path} says nothing of processes that were killed")


@contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """Make a group with a limit in bytes; its processes must have ended at the end."""
    path = _make(limit)
    try:
        yield MemoryGroup(path)
    finally:
        if path is not None:
            eventually(lambda: _remove(path), what=f"nothing is left in {path}")


def _remove(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:  # what was killed is still on its way out
        return False
    return True


def _make(limit: int) -> Path | None:
    first = (ROOT / "memory").is_dir()  # cgroup v1: a tree for each resource
    path = (ROOT / "memory" if first else ROOT) / f"test-{uuid4().hex[:12]}"
    try:
        path.mkdir()
    except OSError:
        return None
    file = path / ("memory.limit_in_bytes" if first else "memory.max")
    if not os.access(file, os.W_OK):  # not a cgroup, or one without the memory controller
        path.rmdir()
        return None
    file.write_text(str(limit))
    return path
