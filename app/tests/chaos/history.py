"""What happened, noted outside the system: a file of lines that only grows.

Workers note the start and the end of each run, the publisher what was confirmed, the harness whom it
hit. A line is one `write` to a file opened for appending, so the file's order is the order of
events, whoever noted them.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

__all__ = ["Event", "History"]

#: One line.
Event = dict[str, Any]


class History:
    """The file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._events: list[Event] = []

    def note(self, event: str, **facts: Any) -> None:
        """Append a line, whole; `t` is the machine's monotonic clock, one for all processes."""
        line = json.dumps({"e": event, "t": round(time.monotonic(), 4), **facts}) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def events(self) -> list[Event]:
        """Everything noted so far, in order; only what is new is read."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if line.endswith(b"\n"):
                        self._events.append(json.loads(line))
                        self._read += len(line)
        return self._events
