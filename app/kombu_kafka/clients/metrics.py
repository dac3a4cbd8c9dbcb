"""What Kafka's client measures of itself, under the names of the Java client's MBeans.

kafka-python's metrics are a port of Java's with some left out. Those of them that come from the
same measurements are added here, so that `consumer-fetch-manager-metrics` is whole: totals, the
throttle time, each partition's lag. The Java client remembers a partition's lag at each fetch;
here its average and maximum are those of the last times it was asked for. Java's `records-lead` is
left out: kafka-python forgets where a partition begins.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from kafka import KafkaConsumer
from kafka.metrics.stats import Total

__all__ = ("ClientMetrics", "CommitMeter", "Sample", "jmx_name")

#: The domain of the Java consumer's MBeans.
DOMAIN = "kafka.consumer"
#: Group of what a consumer measures of its fetches.
FETCH = "consumer-fetch-manager-metrics"
#: Times of which a partition's average and maximum lag are made.
WINDOW = 30

_BYTES = "The total of bytes consumed"
_RECORDS = "The total of records consumed"
_NODE_GROUP = re.compile(r"(.*-node-metrics)\.(node-.+)")


@dataclass
class CommitMeter:
    """How a consumer's commits go: in Kafka's transactions its client measures none of them.

    Attributes:
        count: commits that worked.
        failures: commits that did not, and were tried again.
        seconds: how long the last one took.
        total_seconds: how long all that worked took together.
    """

    count: int = 0
    failures: int = 0
    seconds: float = 0.0
    total_seconds: float = 0.0

    def worked(self, seconds: float) -> None:
        """Note a commit."""
        self.count += 1
        self.seconds = seconds
        self.total_seconds += seconds


class Sample(NamedTuple):
    """One attribute of one MBean.

    Attributes:
        name: as jmx_exporter writes it.
        labels: the MBean's other properties.
        value: its value; NaN where nothing was measured.
        help: what it means.
    """

    name: str
    labels: Mapping[str, str]
    value: float
    help: str


def jmx_name(group: str, attribute: str) -> str:
    """Return the name that jmx_exporter gives an attribute of a consumer's MBean.

    >>> jmx_name("consumer-fetch-manager-metrics", "records-lag-max")
    'kafka_consumer_consumer_fetch_manager_metrics_records_lag_max'
    """
    return re.sub(r"[^a-zA-Z0-9]+", "_", f"{DOMAIN}_{group}_{attribute}").lower()


class _Times(Total):
    """How often something was recorded, whatever its value."""

    def record(self, config: Any, value: float, now: float) -> None:
        """Count once."""
        super().record(config, 1.0, now)


class ClientMetrics:
    """The metrics of one consumer; may be asked from any thread.

    Arguments:
        client: a consumer whose metrics are enabled.
    """

    def __init__(self, client: KafkaConsumer) -> None:
        self._client = client
        self._metrics = client._metrics
        self._tags = {"client-id": str(client.config["client_id"])}
        self._window: dict[Any, deque[int]] = {}
        self._topics: dict[str, tuple[int, int]] = {}
        self._add_totals()

    def samples(self) -> Iterator[Sample]:
        """Return what is measured now."""
        for found, metric in self._metrics.metrics.copy().items():
            group, tags = found.group, found.tags or {}
            node = _NODE_GROUP.fullmatch(group)
            if node:
                group, tags = node[1], {**tags, "node-id": node[2]}
            value = float(metric.value())
            if value == float("-inf"):
                value = float("nan")  # the client's way to say that nothing was measured
            yield self._sample(group, found.name, tags, value, found.description)
            if group == "consumer-metrics" and found.name.startswith("throttle-time-"):
                yield self._sample(FETCH, f"fetch-{found.name}", tags, value, found.description)
        for topic, (consumed, records) in dict(self._topics).items():
            tags = {"topic": topic.replace(".", "_")}
            yield self._sample(FETCH, "bytes-consumed-total", tags, consumed, _BYTES)
            yield self._sample(FETCH, "records-consumed-total", tags, records, _RECORDS)
        yield from self._partitions()

    def _add_totals(self) -> None:
        for name, sensor, stat, about in (
            ("bytes-consumed-total", "bytes-fetched", Total(), _BYTES),
            ("records-consumed-total", "records-fetched", Total(), _RECORDS),
            ("fetch-total", "fetch-latency", _Times(), "The total of fetch requests"),
        ):
            found = self._metrics.metric_name(name, FETCH, about, {})
            self._metrics.get_sensor(sensor).add(found, stat)
        # A topic's sensors are made at its first fetch, when a total would miss that fetch.
        fetches = self._client._fetcher._sensors
        record = fetches.record_topic_fetch_metrics

        def counted(topic: str, consumed: int, records: int) -> None:
            before = self._topics.get(topic, (0, 0))
            self._topics[topic] = (before[0] + consumed, before[1] + records)
            record(topic, consumed, records)

        fetches.record_topic_fetch_metrics = counted

    def _partitions(self) -> Iterator[Sample]:
        """Return the lag of the partitions that are consumed now."""
        assigned = dict(self._client._subscription.assignment)
        self._window = {tp: self._window.get(tp, deque(maxlen=WINDOW)) for tp in assigned}
        for partition, state in assigned.items():
            if state.position is None or state.highwater is None:
                continue
            lags = self._window[partition]
            lags.append(max(0, state.highwater - state.position.offset))
            tags = {
                "topic": partition.topic.replace(".", "_"),
                "partition": str(partition.partition),
            }
            for name, value, about in (
                ("records-lag", lags[-1], "The latest lag of the partition"),
                ("records-lag-avg", sum(lags) / len(lags), "The average lag of the partition"),
                ("records-lag-max", max(lags), "The max lag of the partition"),
            ):
                yield self._sample(FETCH, name, tags, value, about)

    def _sample(
        self, group: str, name: str, tags: Mapping[str, str], value: float, about: str | None
    ) -> Sample:
        labels = {key.replace("-", "_"): text for key, text in {**self._tags, **tags}.items()}
        return Sample(jmx_name(group, name), labels, value, about or name)
