"""The bench (`make bench`) in short: every workload's machinery works; figures mean nothing here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.__main__ import measure
from tests.bench.bench import SHORT, Bench
from tests.bench.contenders import CONFLUENT, OURS, RABBITMQ, REDIS, Servers
from tests.bench.render import render
from tests.bench.results import Results
from tests.bench.workloads import WORKLOADS

#: Between them these use all that workloads share; the rest is for `make bench BENCH=short`.
NAMES = ("drain-solo", "publish-bulk", "backlog")


@pytest.mark.slow
def test_short_bench(tmp_path: Path) -> None:
    """All contenders take part, ours loses nothing, and the page shows what was found."""
    workloads = [workload for workload in WORKLOADS if workload.name in NAMES]
    said: list[str] = []
    with Servers(tmp_path / "servers") as servers:
        results = measure(Bench(servers, SHORT, tmp_path), workloads, 1, said.append)
    assert not results.failures, said
    assert results.runs.keys() == set(NAMES)
    assert {OURS, RABBITMQ, REDIS, CONFLUENT} < results.runs["drain-solo"].keys()
    assert [run["lost"] for run in results.runs["drain-solo"][OURS]] == [0], said
    assert [run["lost"] for runs in results.runs["backlog"].values() for run in runs] == [0, 0]
    page, plots = tmp_path / "benchmarks.md", tmp_path / "benchmarks"
    page.write_text("# Ours\n\nWords before.\n")
    results.write(plots / "results.json")
    for _ in range(2):  # a page that has figures gets new ones in their place
        render(Results.read(plots / "results.json"), page, plots)
    text = page.read_text()
    assert text.startswith("# Ours\n\nWords before.\n")
    for workload in workloads:
        assert text.count(f"### {workload.title}\n") == 1
        assert (plots / f"{workload.name}.svg").read_text().count("<svg")
