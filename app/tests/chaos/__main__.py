"""`make chaos`, or `python -m tests.chaos`: exit code 0 where every promise was kept, else 1."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.chaos import report
from tests.chaos.load import Plan
from tests.chaos.run import Chaos
from tests.chaos.verdict import Verdict

#: Tasks a second, for each of the two queues of a round.
RATE = 20.0


def main() -> int:
    """Run the three orders, one after the other, each with bound partitions and in a group."""
    options = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    seed = os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000)
    seconds = os.environ.get("CHAOS_SECONDS") or 900
    options.add_argument("--seed", type=int, default=int(seed))
    options.add_argument("--seconds", type=float, default=float(seconds), help="of faults, in all")
    options.add_argument("--directory", type=Path, help="for logs and history")
    given = options.parse_args()
    console = Console()
    directory = given.directory or Path.cwd() / ".cache" / f"chaos-{given.seed}-{os.getpid()}"
    replay = f"make chaos CHAOS_SEED={given.seed} CHAOS_SECONDS={given.seconds:g}"
    console.print(f"Seed {given.seed}; to replay: {replay}\nLogs and history: {directory}")
    began = time.monotonic()
    verdicts: dict[str, Verdict] = {}
    with Chaos(
        directory,
        given.seed,
        lambda line: console.print(f"{time.monotonic() - began:5.0f} s  {line}", highlight=False),
    ) as chaos:
        for order in ("partition", "key", "none"):
            plans = [Plan(order, mode) for mode in ("static", "group")]
            verdicts |= chaos.round(plans, given.seconds / 3, RATE)
    report.show(console, verdicts, chaos.counts)
    report.write(
        directory / "verdict.json", verdicts, seed=given.seed, seconds=given.seconds,
        faults=chaos.counts,
    )  # fmt: skip
    ok = all(verdict.ok for verdict in verdicts.values())
    console.print(
        f"{'Every promise was kept' if ok else 'A promise was broken'}; seed {given.seed}"
    )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
