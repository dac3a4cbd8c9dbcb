"""What a run showed, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.verdict import Verdict

__all__ = ["show", "write"]

COLUMNS = (
    "queue", "sent", "unsure", "done", "lost", "dead", "again: running", "again: unsettled",
    "overlaps", "broken",
)  # fmt: skip


def show(console: Console, verdicts: Mapping[str, Verdict], counts: Mapping[str, int]) -> None:
    """Print the table, and what was broken."""
    table = Table(*COLUMNS, title="Chaos")
    for queue, verdict in verdicts.items():
        cells = (
            verdict.confirmed, verdict.unsure, verdict.done, len(verdict.lost), verdict.dead,
            verdict.repeats_running, verdict.repeats_unsettled, verdict.overlaps,
            len(verdict.faults),
        )  # fmt: skip
        table.add_row(
            queue.removeprefix("chaos-"), *map(str, cells), style=None if verdict.ok else "red"
        )
    console.print(table)
    console.print("Faults: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    for queue, verdict in verdicts.items():
        for fault in verdict.faults[:20]:
            console.print(f"{queue}: {fault}", markup=False)
        for task in verdict.lost[:20]:
            console.print(f"{queue}: lost {task}", markup=False)


def write(path: Path, verdicts: Mapping[str, Verdict], **facts: Any) -> None:
    """Write the same as JSON."""
    queues = {queue: {**vars(verdict), "ok": verdict.ok} for queue, verdict in verdicts.items()}
    path.write_text(json.dumps({**facts, "queues": queues}, indent=2) + "\n")
