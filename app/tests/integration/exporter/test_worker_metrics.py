"""A worker's own metrics, and its events in the exporter: a real worker on a real broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from scheduler import processes
from scheduler.factory import create_app
from scheduler.local_broker import LocalKafka
from scheduler.local_worker import LocalWorker
from scheduler.metrics import WORKER
from scheduler.settings import Settings
from tests.eventually import eventually

from .conftest import GROUP, TOPIC, Scrape, health, scrape

PART = {"group": GROUP, "topic": TOPIC, "partition": "1"}
PREFIX = "kafka_consumer_consumer_fetch_manager_metrics_"
#: Attributes of the Java consumer's bean; not its leads, which kafka-python does not know, and
#: not the preferred replica, which it has none of.
OF_THE_CLIENT = (
    "bytes_consumed_rate",
    "bytes_consumed_total",
    "fetch_latency_avg",
    "fetch_latency_max",
    "fetch_rate",
    "fetch_total",
    "fetch_size_avg",
    "fetch_size_max",
    "fetch_throttle_time_avg",
    "fetch_throttle_time_max",
    "records_consumed_rate",
    "records_consumed_total",
    "records_lag_max",
    "records_per_request_avg",
)
OF_A_TOPIC = (
    "bytes_consumed_rate",
    "bytes_consumed_total",
    "fetch_size_avg",
    "fetch_size_max",
    "records_consumed_rate",
    "records_consumed_total",
    "records_per_request_avg",
)
OF_A_PARTITION = (
    "records_lag",
    "records_lag_avg",
    "records_lag_max",
)


@pytest.fixture(scope="module")
def app(broker: LocalKafka) -> Iterator[Celery]:
    settings = Settings(
        broker_url=broker.url(TOPIC), topic=TOPIC, group_id=GROUP, app_modules=("tests.tasks",)
    )
    made = create_app(settings)
    made.loader.import_default_modules()
    yield made
    made.close()


@pytest.fixture(scope="module")
def base() -> int:
    """CELERY_METRICS_PORT, such that partition 1's port is free."""
    return processes.free_port() - 1


@pytest.fixture(scope="module")
def worker(
    broker: LocalKafka, app: Celery, base: int, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalWorker]:
    eventually(lambda: scrape(port).value("celery_exporter_events_up") == 1)
    directory: Path = tmp_path_factory.mktemp("worker")
    made = LocalWorker(
        broker.url(TOPIC),
        1,
        directory=directory,
        environ={
            "CELERY_APP_MODULE": "tests.tasks",
            "CELERY_METRICS_PORT": str(base),
            "LEDGER_FILE": str(directory / "ledger"),
        },
    )
    made.start()
    made.wait_ready()
    for _ in range(5):
        app.tasks["tests.note"].apply_async(partition=1)
    yield made
    made.stop()


def done(base: int) -> Scrape:
    found: Scrape = eventually(
        lambda: (
            (page := scrape(base + 1)).value("kombu_kafka_watermark", **PART)
            and page.value("kombu_kafka_in_flight", **PART) == 0
            and page.value("kombu_kafka_commits_total")
            and page
        )
    )
    return found


def test_a_worker_serves_all_that_is_defined(worker: LocalWorker, base: int) -> None:
    defined = {series for metric in WORKER.values() for series in metric.series}
    # It speaks no TLS here, so it has no certificate.
    defined.remove("kombu_kafka_certificate_expiry_timestamp_seconds")
    page = eventually(
        lambda: (page := done(base)) and defined <= {name for name, _, _ in page.samples} and page
    )
    assert page.value("kombu_kafka_partition_owned", **PART) == 1
    assert page.value("kombu_kafka_consumer_up") == 1
    assert page.value("kombu_kafka_pool_size") == 1
    assert page.value("kombu_kafka_commit_failures_total") == 0
    assert health(base + 1)[0] == 200


def test_the_whole_of_the_fetch_manager_is_served(worker: LocalWorker, base: int) -> None:
    page = done(base)

    def served(*labels: str) -> set[str]:
        return {
            name.removeprefix(PREFIX)
            for name, own, _ in page.samples
            if name.startswith(PREFIX) and set(own) == {"client_id", *labels}
        }

    assert set(OF_THE_CLIENT) <= served()
    assert set(OF_A_TOPIC) <= served("topic")
    assert set(OF_A_PARTITION) <= served("topic", "partition")
    consumed = page.value(PREFIX + "records_consumed_total", topic=TOPIC)
    assert consumed is not None
    assert consumed > 0  # counted from when the worker first looks, not from its first fetch


def test_the_exporter_hears_the_worker(worker: LocalWorker, port: int, base: int) -> None:
    labels = {"task": "tests.note", "worker": f"{worker.name}@{_host()}"}
    counted = "celery_worker_tasks_succeeded_total"
    eventually(lambda: (scrape(port).value(counted, **labels) or 0) >= 1)
    page = scrape(port)
    assert page.value("celery_task_runtime_seconds_count", task="tests.note")
    assert page.value("celery_exporter_events_up") == 1
    assert page.value("celery_worker_up", worker=labels["worker"]) == 1
    eventually(lambda: scrape(port).value("celery_worker_pool_size", worker=labels["worker"]) == 1)
    assert health(port)[0] == 200
    assert page.value("celery_task_succeeded_total", name="tests.note", hostname=_host())


def test_what_waits_for_its_time_is_counted(worker: LocalWorker, app: Celery, port: int) -> None:
    app.tasks["tests.note"].apply_async(countdown=3600)
    eventually(lambda: sum(v for _, v in scrape(port).all("celery_delayed_messages")) >= 1)
    late = scrape(port).all("celery_delayed_late_seconds")
    assert late
    assert all(seconds < 30 for _, seconds in late)


def _host() -> str:
    from celery.utils.nodenames import gethostname

    return str(gethostname())
