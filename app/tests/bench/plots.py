"""A plot for each workload: bars with the range over the repeats, or a curve."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from tests.bench.results import Results, summary
from tests.bench.workloads.base import Workload

__all__ = ["plot"]

OURS, OTHERS = "#1f6fb2", "#b0b7bf"


def plot(workload: Workload, results: Results, path: Path) -> None:
    """Write an SVG of the workload's first figure."""
    figure = workload.figures[0]
    found = {name: summary(runs, figure.name) for name, runs in results.runs[workload.name].items()}
    named = {name: value for name, value in found.items() if value is not None}
    if not named:
        return
    names, values = list(named), list(named.values())
    medians = [value.median for value in values]
    spread = [
        [value.median - value.least for value in values],
        [value.most - value.median for value in values],
    ]
    label = f"{figure.title}, {figure.unit}" if figure.unit else figure.title
    curve = workload.axis is not None
    canvas = Canvas(figsize=(7, 3.2 if curve else 0.5 * len(names) + 1.1), layout="constrained")
    axes = canvas.add_subplot()
    if curve:
        points = [int(name) for name in names]
        axes.errorbar(points, medians, yerr=spread, marker="o", capsize=3, color=OURS)
        axes.set(xscale="log", xlabel=workload.axis, ylabel=label, ylim=(0, None))
        axes.set_xticks(points, [f"{point:,}" for point in points])
        axes.minorticks_off()
    else:
        colours = [OURS if index == 0 else OTHERS for index in range(len(names))]
        bars = axes.barh(names, medians, xerr=spread, color=colours, capsize=3)
        axes.bar_label(bars, [f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in medians],
                       padding=6)  # fmt: skip
        axes.set(xlabel=label)
        axes.margins(x=0.15)
        axes.invert_yaxis()
    axes.set_title(workload.title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    # The same figures give the same file.
    with mpl.rc_context({"svg.hashsalt": workload.name, "svg.fonttype": "none"}):
        canvas.savefig(path, metadata={"Date": None})
