"""`make bench`, or `python -m tests.bench`: measure everything, or what is named, and write the page."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.bench import SHORT, Bench, BenchError, Sizes
from tests.bench.contenders import Servers
from tests.bench.render import render
from tests.bench.results import Results, machine
from tests.bench.workloads import WORKLOADS
from tests.bench.workloads.base import Workload

__all__ = ["measure"]


def measure(
    bench: Bench, workloads: Sequence[Workload], repeats: int, say: Callable[[str], None]
) -> Results:
    """Run each workload for all its contenders in turn, as often as asked."""
    results = Results(machine(), repeats)
    for workload in workloads:
        for repeat in range(min(repeats, workload.repeats or repeats)):
            for name in workload.contenders(bench):
                try:
                    figures = workload.run(bench, name)
                except (BenchError, subprocess.TimeoutExpired) as exc:
                    results.failures.append((workload.name, name, str(exc)))
                    say(f"{workload.name} {name}: {exc}")
                else:
                    results.add(workload.name, name, figures)
                    told = " ".join(f"{key}={value:.6g}" for key, value in figures.items())
                    say(f"{workload.name} {repeat + 1} {name}: {told}")
    return results


def main() -> int:
    """Measure; print each figure as it is found."""
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("only", nargs="*", help=f"of {', '.join(names)}")
    parser.add_argument("--short", action="store_true", default=os.environ.get("BENCH") == "short",
                        help="show that it works; the figures mean nothing")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=int(os.environ.get("BENCH_REPEATS") or 3))
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks.md"), help="the page")
    parser.add_argument("--render", action="store_true", help="only write the page again")
    given = parser.parse_args()
    if unknown := set(given.only) - set(names):
        parser.error(f"no workload is called {', '.join(sorted(unknown))}")
    # What is short, or not all, is no news for the page.
    page = given.output if not (given.short or given.only) else Path(".cache/bench/benchmarks.md")
    plots = page.with_suffix("")
    if given.render:
        render(Results.read(plots / "results.json"), page, plots)
        return 0
    workloads = [w for w in WORKLOADS if not given.only or w.name in given.only]
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory,
        Servers(Path(directory) / "servers") as servers,
    ):
        bench = Bench(servers, SHORT if given.short else Sizes(), Path(directory))
        results = measure(
            bench, workloads, 1 if given.short else given.repeats,
            lambda line: print(f"{time.monotonic() - began:5.0f} s  {line}", flush=True),
        )  # fmt: skip
    page.parent.mkdir(parents=True, exist_ok=True)
    results.write(plots / "results.json")
    render(results, page, plots)
    print(f"Written: {page}, {plots}/")
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
