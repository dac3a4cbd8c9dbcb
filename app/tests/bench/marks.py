"""Which tasks ran, and when each began: a file that all processes of a run map into their memory."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

__all__ = ["Marks"]

#: A task's place: when it began (`time.monotonic`, one clock for all processes), how often it ran.
_PLACE = struct.Struct("dI4x")


class Marks:
    """A place for each task, by its number.

    Args:
        path: The file.
        count: How many places it has; it is made anew. Without, it is there already.
    """

    def __init__(self, path: Path, count: int | None = None) -> None:
        self.path = path
        if count is not None:
            with path.open("wb") as file:
                file.truncate(max(1, count) * _PLACE.size)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._count = len(self._map) // _PLACE.size

    def mark(self, number: int, at: float | None = None) -> None:
        """Note that a task begins (or began at `at`); numbers without a place are let pass."""
        if number >= self._count:
            return
        place = number * _PLACE.size
        began, times = _PLACE.unpack_from(self._map, place)
        now = time.monotonic() if at is None else at
        _PLACE.pack_into(self._map, place, began or now, times + 1)

    def began(self) -> list[float]:
        """When each task began that did, by number; 0 for those that did not."""
        return [began for began, _ in _PLACE.iter_unpack(self._map)]

    def seen(self) -> int:
        """How many tasks have begun."""
        return sum(times > 0 for _, times in _PLACE.iter_unpack(self._map))

    def repeats(self) -> int:
        """How many runs were not their task's first."""
        return sum(max(0, times - 1) for _, times in _PLACE.iter_unpack(self._map))

    def wait(self, wanted: int | None = None, *, patience: float) -> int:
        """Wait until so many (all, by default) have begun, or none has for `patience` seconds.

        Returns:
            How many have.
        """
        wanted = self._count if wanted is None else wanted
        best, since = -1, time.monotonic()
        while (seen := self.seen()) < wanted:
            if seen > best:
                best, since = seen, time.monotonic()
            elif time.monotonic() - since > patience:
                break
            time.sleep(0.1)
        return seen

    def clear(self) -> None:
        """Forget all."""
        self._map[:] = bytes(len(self._map))

    def close(self) -> None:
        self._map.close()
