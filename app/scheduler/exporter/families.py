"""Metrics in memory, bounded, and written as Prometheus reads them.

prometheus_client takes some microseconds a sample, too many for the lag of 50 groups in 1,000
partitions; here a sample's labels are written once, when it is made.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from scheduler.metrics import Metric

__all__ = ["OTHER", "Families", "Family", "HistogramFamily", "escaped", "head", "number", "sample"]

#: Label value under which samples are counted once a metric has its full number of series.
OTHER = "other"
#: Series of one metric.
MAX_SERIES = 2000
#: Characters of a label value.
MAX_VALUE = 200


def escaped(value: object) -> str:
    """Return a label value as it is written between quotes."""
    text = str(value)[:MAX_VALUE]
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def number(value: float) -> str:
    """Return a sample's value as it is written.

    >>> number(3.0), number(0.25), number(float("inf"))
    ('3', '0.25', '+Inf')
    """
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


def head(metric: Metric) -> list[str]:
    """Return the lines that go before a metric's samples."""
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    return [f"# HELP {metric.name} {text}", f"# TYPE {metric.name} {metric.kind}"]


def sample(name: str, labels: Iterable[str], values: Iterable[object]) -> str:
    """Return a sample's name and labels, to which the value is added."""
    pairs = ",".join(
        f'{label}="{escaped(value)}"' for label, value in zip(labels, values, strict=True)
    )
    return f"{name}{{{pairs}}} " if pairs else f"{name} "


class Family:
    """The samples of one counter or gauge.

    Arguments:
        metric: its definition.
        overflowed: called with the metric's name when a sample goes to `OTHER`.
        limit: how many series it may have.
    """

    def __init__(
        self,
        metric: Metric,
        overflowed: Callable[[str], object] = lambda name: None,
        limit: int = MAX_SERIES,
    ) -> None:
        self.metric = metric
        self._overflowed = overflowed
        self._limit = limit
        self._values: dict[tuple[str, ...], float] = {}
        self._texts: dict[tuple[str, ...], str] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def set(self, value: float, *labels: str) -> None:
        """Give a sample its value."""
        self._values[self._key(labels)] = value

    def inc(self, *labels: str, by: float = 1.0) -> None:
        """Add to a sample; 0 makes it visible."""
        key = self._key(labels)
        self._values[key] = self._values.get(key, 0.0) + by

    def get(self, *labels: str) -> float | None:
        """Return a sample's value, or None."""
        return self._values.get(labels)

    def remove(self, label: str, value: str) -> None:
        """Forget the samples that have this label value."""
        index = self.metric.labels.index(label)
        for key in [key for key in self._texts if key[index] == value]:
            del self._texts[key]
            self._values.pop(key, None)

    def clear(self) -> None:
        """Forget all samples."""
        self._values.clear()
        self._texts.clear()

    def lines(self) -> Iterator[str]:
        """Write the family; nothing where there is no sample."""
        if self._values:
            yield from head(self.metric)
            for key, value in self._values.items():
                yield self._texts[key] + number(value)

    def _key(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        if labels in self._texts:
            return labels
        if len(self._texts) >= self._limit:
            self._overflowed(self.metric.name)
            labels = (OTHER,) * len(labels)
        if labels not in self._texts:
            self._texts[labels] = sample(self.metric.name, self.metric.labels, labels)
        return labels


class HistogramFamily(Family):
    """The samples of one histogram."""

    def __init__(
        self,
        metric: Metric,
        overflowed: Callable[[str], object] = lambda name: None,
        limit: int = MAX_SERIES,
    ) -> None:
        # Each has a series a bucket, and three more.
        super().__init__(metric, overflowed, max(1, limit // (len(metric.buckets) + 3)))
        self._counts: dict[tuple[str, ...], list[int]] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Count a value (negative ones, which clocks that differ give, as 0)."""
        value = max(0.0, value)
        key = self._key(labels)
        counts = self._counts.setdefault(key, [0] * (len(self.metric.buckets) + 1))
        counts[bisect_left(self.metric.buckets, value)] += 1
        self._values[key] = self._values.get(key, 0.0) + value

    def remove(self, label: str, value: str) -> None:
        """Forget the samples that have this label value."""
        super().remove(label, value)
        self._counts = {key: counts for key, counts in self._counts.items() if key in self._texts}

    def lines(self) -> Iterator[str]:
        """Write the family; nothing where there is no sample."""
        if not self._counts:
            return
        yield from head(self.metric)
        bounds = [*(number(bound) for bound in self.metric.buckets), "+Inf"]
        for key, counts in self._counts.items():
            labels = self._texts[key][len(self.metric.name) :].strip().strip("{}")
            inner = labels + "," if labels else ""
            total = 0
            for bound, count in zip(bounds, counts, strict=True):
                total += count
                yield f'{self.metric.name}_bucket{{{inner}le="{bound}"}} {total}'
            suffix = f"{{{labels}}}" if labels else ""
            yield f"{self.metric.name}_count{suffix} {total}"
            yield f"{self.metric.name}_sum{suffix} {number(self._values[key])}"


class Families:
    """Some metrics of a table, by name.

    Arguments:
        metrics: their definitions.
        overflowed: called with a metric's name when it has its full number of series.
    """

    def __init__(
        self, metrics: Iterable[Metric], overflowed: Callable[[str], object] = lambda name: None
    ) -> None:
        self._families: dict[str, Family] = {
            metric.name: (HistogramFamily if metric.kind == "histogram" else Family)(
                metric, overflowed
            )
            for metric in metrics
        }

    def __getitem__(self, name: str) -> Family:
        return self._families[name]

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Count a value in a histogram."""
        family = self._families[name]
        assert isinstance(family, HistogramFamily)
        family.observe(value, *labels)

    def forget(self, label: str, value: str) -> None:
        """Forget every sample that has this label value."""
        for family in self._families.values():
            if label in family.metric.labels:
                family.remove(label, value)

    def lines(self) -> Iterator[str]:
        """Write all families."""
        for family in self._families.values():
            yield from family.lines()
