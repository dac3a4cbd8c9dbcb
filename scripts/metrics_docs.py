#!/usr/bin/env python3
"""Writes the tables of docs/monitoring.md from scheduler/metrics.py; ``--check`` only compares."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from scheduler import metrics
from scheduler.metrics import Metric

PAGE = Path(__file__).resolve().parent.parent / "docs" / "monitoring.md"
TABLES = {"exporter": metrics.EXPORTER, "worker": metrics.WORKER, "compat": metrics.COMPAT}


def table(definitions: Iterable[Metric]) -> str:
    """A row for each metric."""
    rows = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in definitions:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        meaning = metric.help.replace("|", "\\|")
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {meaning} |")
    return "\n".join(rows)


def page(text: str) -> str:
    """The page with its tables made anew."""
    for name, definitions in TABLES.items():
        begin, end = f"<!-- table: {name} -->\n", f"<!-- end: {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"{PAGE} must hold one {begin.strip()} and one {end}.")
        text = re.sub(
            f"(?s){re.escape(begin)}.*?{re.escape(end)}",
            lambda _, b=begin, e=end, d=definitions: f"{b}\n{table(d.values())}\n\n{e}",  # type: ignore[misc]
            text,
        )
    return text


def main() -> int:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description="Write the tables of docs/monitoring.md.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing, fail where it differs"
    )
    check = parser.parse_args().check
    text = PAGE.read_text()
    wanted = page(text)
    if text == wanted:
        return 0
    if check:
        print("docs/monitoring.md is out of date: run scripts/metrics_docs.py.", file=sys.stderr)
        return 1
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
