"""jmx_exporter on a real broker and a real Java consumer: what the rules of files/jmx_exporter take."""

from __future__ import annotations

import http.client
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from kombu_kafka.clients.metrics import FETCH, jmx_name
from scheduler import processes
from scheduler.local_broker import LocalKafka, find_home
from tests.eventually import eventually
from tests.promql import BROKER, ROOT, names

RULES = ROOT / "files" / "jmx_exporter" / "kafka.yml"

#: Of a topic that is added.
PARTITIONS = 60

Series = list[tuple[str, dict[str, str]]]


def scrape(port: int, limit: float = 120) -> Series:
    """Return names and labels of what an agent serves, once it does."""
    deadline = time.monotonic() + limit
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                page = answer.read().decode()
            break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    return [
        (sample.name, sample.labels)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]


@pytest.fixture(scope="module")
def agent() -> str:
    """The agent's jar, from the local Maven repository or Maven Central."""
    jar = ROOT / ".cache" / "jmx_exporter" / "jmx_prometheus_javaagent.jar"
    subprocess.run([ROOT / "files" / "jmx_exporter" / "get_agent.sh", jar], check=True)
    return str(jar)


@pytest.fixture(scope="module")
def port() -> int:
    return processes.free_port()


@pytest.fixture(scope="module")
def watched(agent: str, port: int) -> Iterator[LocalKafka]:
    cluster = LocalKafka()
    cluster.nodes[0].jvm = (f"-javaagent:{agent}=127.0.0.1:{port}:{RULES}",)
    with cluster:
        cluster.create_topic("tasks", 2)
        producer = KafkaProducer(bootstrap_servers=cluster.bootstrap)
        for _ in range(10):
            producer.send("tasks", b"x").get(timeout=20)
        producer.close()
        yield cluster


def test_every_name_that_a_rule_or_dashboard_uses_is_scraped(
    watched: LocalKafka, port: int
) -> None:
    wanted = names(BROKER)
    assert len(wanted) > 5
    eventually(lambda: wanted <= {name for name, _ in scrape(port)})


def test_all_sides_of_a_broker_are_covered(watched: LocalKafka, port: int) -> None:
    prefixes = (
        "kafka_server_brokertopicmetrics_",
        "kafka_server_replicamanager_",
        "kafka_controller_kafkacontroller_",
        "kafka_server_raft_",
        "kafka_network_requestmetrics_",
        "kafka_network_socketserver_",
        "kafka_log_logmanager_",
        "kafka_server_group_coordinator_",
    )

    def missing() -> list[str]:
        found = {name for name, _ in scrape(port)}
        return [each for each in prefixes if not any(name.startswith(each) for name in found)]

    eventually(lambda: not missing())


def test_series_do_not_grow_with_topics(watched: LocalKafka, port: int) -> None:
    def growing() -> set[tuple[str, str]]:
        # Kinds of requests and connections come and go by themselves, as others do at their first use.
        return {
            (name, str(sorted(labels.items())))
            for name, labels in scrape(port)
            if not name.startswith(("kafka_network_requestmetrics_", "kafka_server_socket_server_"))
        }

    before = growing()
    watched.create_topic("many", PARTITIONS)
    assert len(growing() - before) < PARTITIONS / 2
    series = scrape(port)
    assert len(series) < 600
    assert not [labels for _, labels in series if {"topic", "partition"} & set(labels)]
    # jmx_exporter adds this label where two attributes get one name: a rule that takes too much.
    assert not [name for name, labels in series if "_objectname" in labels]


def test_a_java_consumer_has_the_names_that_workers_serve(
    watched: LocalKafka, agent: str, tmp_path: Path
) -> None:
    mine = processes.free_port()
    log = tmp_path / "log"
    command = [
        "java", "-Xmx128m", f"-javaagent:{agent}=127.0.0.1:{mine}:{RULES}",
        "-cp", f"{find_home()}/libs/*", "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "--bootstrap-server", watched.bootstrap[0], "--topic", "tasks", "--from-beginning",
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=processes.dies_with_parent(),
        )
    try:
        wanted = {
            (jmx_name(FETCH, name), frozenset(labels))
            for name, labels in (
                ("records-lag-max", {"client_id"}),
                ("records-consumed-total", {"client_id"}),
                ("bytes-consumed-total", {"client_id", "topic"}),
                ("fetch-latency-avg", {"client_id"}),
                ("records-lag", {"client_id", "topic", "partition"}),
            )
        }
        # They come with the first records, one after another.
        eventually(
            lambda: wanted <= {(name, frozenset(labels)) for name, labels in scrape(mine)},
            what=f"all of {wanted}; {log}",
        )
    finally:
        processes.stop(process, 20)
