"""The page: tables and plots between two marks of docs/benchmarks.md; the words around them are people's."""

from __future__ import annotations

from pathlib import Path

from tests.bench.plots import plot
from tests.bench.results import Results, Summary, summary
from tests.bench.workloads import WORKLOADS
from tests.bench.workloads.base import Workload

__all__ = ["figures_of", "render"]

BEGIN, END = "<!-- what `make bench` writes: begin -->", "<!-- end -->"


def render(results: Results, page: Path, plots: Path) -> None:
    """Write the figures into the page, and the plots beside it."""
    text = page.read_text() if page.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    plots.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{BEGIN}\n\n{figures_of(results, plots)}\n{END}{after}")


def figures_of(results: Results, plots: Path) -> str:
    """Return the tables, and make the plots."""
    parts = [_machine(results)]
    for workload in WORKLOADS:
        if workload.name in results.runs:
            plot(workload, results, plots / f"{workload.name}.svg")
            parts.append(_workload(workload, results, plots.name))
    if results.failures:
        rows = [f"- {workload}, {name}: {why}" for workload, name, why in results.failures]
        parts.append("\n".join(["## What came to nothing", "", *rows, ""]))
    return "\n".join(parts)


def _machine(results: Results) -> str:
    facts = "; ".join(f"{name} {value}" for name, value in results.machine.items())
    return f"Measured on: {facts}. Up to {results.repeats} repeats; a range is from the least to the most.\n"


def _workload(workload: Workload, results: Results, directory: str) -> str:
    runs = results.runs[workload.name]
    names = list(runs)
    # A ratio is that of the first figure, to the first contender; a curve speaks for itself.
    ratio = workload.axis is None and len(names) > 1
    titles = [
        workload.axis or "",
        *(f"{figure.title}, {figure.unit}" if figure.unit else figure.title for figure in workload.figures),
        *([f"{names[0]} compared"] if ratio else []),
    ]  # fmt: skip
    lines = [
        f"### {workload.title}",
        "",
        workload.about,
        "",
        _row(titles),
        _row(["---"] * len(titles)),
    ]
    for name in names:
        cells = [name if workload.axis is None else f"{int(name):,}"]
        cells += [_cell(summary(runs[name], figure.name)) for figure in workload.figures]
        if ratio:
            cells.append(_ratio(results, workload, names[0], name))
        lines.append(_row(cells))
    lines += ["", f"![{workload.title}]({directory}/{workload.name}.svg)", ""]
    return "\n".join(lines)


def _ratio(results: Results, workload: Workload, first: str, other: str) -> str:
    """How many times the first contender's figure is the other's, as a median over pairs of one repeat."""
    figure = workload.figures[0]
    runs = results.runs[workload.name]
    pairs = [
        {"ratio": ours[figure.name] / theirs[figure.name], "lost": ours.get("lost", 0) + theirs.get("lost", 0)}
        for ours, theirs in zip(runs[first], runs[other], strict=False)
        if figure.name in ours and theirs.get(figure.name)
    ]  # fmt: skip
    found = summary(pairs, "ratio") if other != first else None
    return f"{found.median:.2f} times" if found else ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(found: Summary | None) -> str:
    if found is None:
        return "void"
    if found.least == found.most:
        return _number(found.median)
    return f"{_number(found.median)} ({_number(found.least)} to {_number(found.most)})"


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
