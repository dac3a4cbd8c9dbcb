"""Where a worker serves its metrics, and that they go through a fork."""

from __future__ import annotations

import os
import socket
import urllib.request

import pytest

from kombu_kafka.clients.metrics import jmx_name
from scheduler.metrics_server import MetricsServer
from scheduler.worker_metrics import port_of


@pytest.mark.parametrize(
    ("given", "partitions", "port"),
    [
        ("9540", (0,), 9540),
        (" 9540 ", (3, 7), 9543),
        ("9540", None, 9540),
        ("", (3,), None),
        (None, (3,), None),
    ],
)
def test_each_partition_has_its_port(
    given: str | None, partitions: tuple[int, ...] | None, port: int | None
) -> None:
    environ = {} if given is None else {"CELERY_METRICS_PORT": given}
    assert port_of(environ, partitions) == port


@pytest.mark.parametrize(
    ("unit", "port"),
    [
        ("celery-group@1.service", 9541),
        ("celery-group@12", 9552),
        ("celery-group@blue.service", 9540),
        ("celery.service", 9540),
        ("", 9540),
    ],
)
def test_workers_of_a_group_have_a_port_each_on_one_host(unit: str, port: int) -> None:
    environ = {"CELERY_METRICS_PORT": "9540", "CELERY_UNIT": unit}
    assert port_of(environ, None) == port
    assert port_of(environ, (7,)) == 9547  # a bound partition's number goes before


@pytest.mark.parametrize("given", ["http", "-1", "0", "65530", "9540.5", "٣"])
def test_what_is_no_port_is_refused_with_a_sentence(given: str) -> None:
    with pytest.raises(ValueError, match="CELERY_METRICS_PORT"):
        port_of({"CELERY_METRICS_PORT": given}, (10,))


def test_names_are_those_of_jmx_exporter() -> None:
    group = "consumer-fetch-manager-metrics"
    prefix = "kafka_consumer_consumer_fetch_manager_metrics_"
    assert jmx_name(group, "records-lag-max") == prefix + "records_lag_max"
    assert jmx_name(group, "bytes-consumed-total") == prefix + "bytes_consumed_total"


def test_a_forked_child_does_not_keep_the_port() -> None:
    server = MetricsServer("127.0.0.1", 0, lambda: [b"up 1\n"], lambda: (True, {}))
    server.start()
    port = server.port
    asleep, wake = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.read(asleep, 1)
        os._exit(0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.read() == b"up 1\n"
        server.stop()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    finally:
        os.write(wake, b"x")
        os.waitpid(child, 0)
        os.close(wake)
        os.close(asleep)
