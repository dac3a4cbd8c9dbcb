"""One broker and one exporter for all tests of the exporter; the last test kills the broker."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scheduler.exporter import slow
from scheduler.exporter.service import Exporter, ExporterConfig
from scheduler.local_broker import LocalKafka
from scheduler.settings import Settings

TOPIC, LETTERS, GROUP = "tasks", "celery_tasks_dlq", "celery-group"


@dataclass
class Scrape:
    """A page of metrics, and questions about it."""

    samples: list[tuple[str, dict[str, str], float]]

    def value(self, metric: str, /, **labels: str) -> float | None:
        """Return the value of the one sample with these labels, or None."""
        found = self.all(metric, **labels)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def all(self, metric: str, /, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each sample with these labels."""
        return [
            (own, value)
            for name, own, value in self.samples
            if name == metric and own.items() >= labels.items()
        ]


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def scrape(port: int) -> Scrape:
    status, page = get(port, "/metrics")
    assert status == 200
    return Scrape(
        [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        ]
    )


def health(port: int) -> tuple[int, dict[str, Any]]:
    status, page = get(port, "/health")
    return status, json.loads(page)


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalKafka]:
    """A broker that may be killed."""
    with LocalKafka() as cluster:
        cluster.create_topic(TOPIC, 2)
        cluster.create_topic(LETTERS, 1)
        yield cluster


@pytest.fixture(scope="module")
def port(broker: LocalKafka) -> Iterator[int]:
    """Where an exporter on that broker answers."""
    settings = Settings(
        broker_url=broker.url(TOPIC), topic=TOPIC, group_id=GROUP, connect_timeout=5
    )
    config = ExporterConfig(settings, port=0, interval=0.5, expire=3600, compat=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slow, "DELAYS_EVERY", 1.0)
        exporter = Exporter(config)
    exporter.start()
    yield exporter.server.port
    exporter.stop()
