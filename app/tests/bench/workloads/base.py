"""What a workload is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.bench import Bench, Figures

__all__ = ["Figure", "Workload"]


@dataclass(frozen=True)
class Figure:
    """A figure of a workload.

    Attributes:
        name: Its key in what `run` returns.
        title: Its column.
        unit: Of the value.
        more: Whether more is better; None where neither is.
    """

    name: str
    title: str
    unit: str
    more: bool | None = True


@dataclass(frozen=True)
class Workload:
    """A piece of work.

    Attributes:
        name: For files and the command line.
        title: Its heading.
        about: A paragraph: what is done and measured.
        contenders: Who takes part, for a `Bench`; ours first, or for a curve its points in turn.
        figures: What is found, the one that the plot shows first.
        run: Do it for one of them.
        axis: For a curve, what its points are numbers of.
        repeats: At most so many.
    """

    name: str
    title: str
    about: str
    contenders: Callable[[Bench], tuple[str, ...]]
    figures: tuple[Figure, ...]
    run: Callable[[Bench, str], Figures]
    axis: str | None = None
    repeats: int | None = None
