"""What is kept in memory is bounded, and written as Prometheus reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from scheduler.exporter.families import MAX_VALUE, OTHER, Families, Family, HistogramFamily
from scheduler.metrics import EXPORTER, Metric

COUNTER = Metric("things_total", "counter", ("name",), 'Things, "quoted" \\ and\nbroken.')


def parsed(lines: list[str]) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_label_values_of_any_kind_survive() -> None:
    family = Family(COUNTER)
    ugly = 'a"b\\c\nd{e}=,'
    family.inc(ugly)
    family.inc(ugly, by=2.5)
    assert parsed(list(family.lines())) == {"things_total": [({"name": ugly}, 3.5)]}


def test_a_long_label_value_is_cut() -> None:
    family = Family(COUNTER)
    family.inc("x" * 10_000)
    [(labels, _)] = parsed(list(family.lines()))["things_total"]
    assert len(labels["name"]) == MAX_VALUE


def test_more_series_than_there_may_be_are_counted_under_other() -> None:
    overflowed: list[str] = []
    family = Family(COUNTER, overflowed.append, limit=3)
    for number in range(10):
        family.inc(str(number))
    values = {
        labels["name"]: value for labels, value in parsed(list(family.lines()))["things_total"]
    }
    assert values == {"0": 1, "1": 1, "2": 1, OTHER: 7}
    assert overflowed == ["things_total"] * 7


def test_a_histogram_counts_its_buckets_up() -> None:
    family = HistogramFamily(Metric("took", "histogram", ("task",), "Time.", (0.1, 1.0)))
    for value in (-3.0, 0.1, 0.5, 7.0):
        family.observe(value, "t")
    found = parsed(list(family.lines()))
    buckets = {labels["le"]: value for labels, value in found["took_bucket"]}
    assert buckets == {"0.1": 2, "1": 3, "+Inf": 4}
    assert found["took_count"] == [({"task": "t"}, 4)]
    assert found["took_sum"][0][1] == 7.6
    family.remove("task", "t")
    assert not list(family.lines())


def test_every_definition_can_be_written() -> None:
    families = Families(EXPORTER.values())
    for name, metric in EXPORTER.items():
        labels = ["x"] * len(metric.labels)
        if metric.kind == "histogram":
            families.observe(name, 1, *labels)
        else:
            families[name].set(1, *labels)
    found = parsed(list(families.lines()))
    assert set(found) == {series for metric in EXPORTER.values() for series in metric.series}
