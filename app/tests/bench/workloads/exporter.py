"""How fast the exporter looks at 50 groups in 1,000 partitions, and answers a scrape."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import CoordinatorNotAvailableError
from kafka.structs import OffsetAndMetadata, TopicPartition

from kombu_kafka.consuming.commit_metadata import encode
from scheduler import processes
from scheduler.local_broker import LocalKafka
from tests.bench.bench import Bench, BenchError, Figures
from tests.bench.workloads.base import Figure, Workload

__all__ = ["WORKLOAD"]

TOPICS = 10
#: Looks at Kafka that are timed.
ROUNDS = 5


def fill(kafka: LocalKafka, partitions: int, groups: int) -> None:
    """Make the topics with a record in each partition; have every group commit before it."""
    admin = kafka.admin()
    try:
        names = [f"bench-{number}" for number in range(TOPICS)]
        admin.create_topics(
            {
                name: {"num_partitions": partitions // TOPICS, "replication_factor": 1}
                for name in names
            }
        )
        admin.wait_for_topics(names, timeout_ms=60_000)
        for group in range(groups):
            metadata = encode(f"worker-{group}@host", 0, [range(3, 5)])
            offsets = {
                TopicPartition(name, number): OffsetAndMetadata(0, metadata, -1)
                for name in names
                for number in range(partitions // TOPICS)
            }
            commit(admin, f"group-{group:02}", offsets)
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
        for partition in offsets:
            producer.send(partition.topic, b"{}", partition=partition.partition)
        producer.close()
    finally:
        admin.close()


def commit(admin: KafkaAdminClient, group: str, offsets: object) -> None:
    """Commit for a group; the brokers make the topic of offsets at the first try."""
    deadline = time.monotonic() + 60
    while True:
        try:
            admin.alter_group_offsets(group, offsets)
            return
        except CoordinatorNotAvailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextlib.contextmanager
def running(kafka: LocalKafka, port: int) -> Iterator[None]:
    """Run the exporter as its unit does."""
    command = ["exporter", "--kafka-broker", kafka.bootstrap[0], "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "scheduler.cli", *command, "--interval", "0.5", "--no-events"],
        env={**os.environ, "CELERY_BROKER_URL": "", "CELERY_GROUP_ID": "group-00"},
        stdout=subprocess.DEVNULL,
        preexec_fn=processes.dies_with_parent(),
    )
    try:
        while not processes.listens(port):
            if process.poll() is not None:
                raise BenchError("the exporter ended")
            time.sleep(0.1)
        yield
    finally:
        processes.stop(process, 10)


def scrape(port: int) -> tuple[float, bytes]:
    """Return how long a scrape took, and what it returned."""
    started = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        page: bytes = answer.read()
    return time.perf_counter() - started, page


def value(page: bytes, name: str) -> float:
    """Return a metric without labels, 0 where it is missing."""
    found = re.search(rb"^%s (.*)$" % name.encode(), page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def run(bench: Bench, contender: str) -> Figures:
    """Have it look at a broker of its own, whose offsets lie in more than one partition."""
    partitions, groups = bench.sizes.exporter
    took: list[float] = []
    scrapes: list[float] = []
    with LocalKafka(properties={"offsets.topic.num.partitions": 4}) as kafka:
        fill(kafka, partitions, groups)
        port = processes.free_port()
        with running(kafka, port):
            last, size = 0.0, 0
            deadline = time.monotonic() + 120
            while len(took) < ROUNDS:
                # Also while a look is under way: a scrape must not wait for it.
                seconds, page = scrape(port)
                at = value(page, "celery_exporter_last_refresh_timestamp_seconds")
                if at:
                    scrapes.append(seconds)
                    size = len(page)
                if at > last:
                    last = at
                    took.append(value(page, "celery_exporter_refresh_seconds"))
                if time.monotonic() > deadline:
                    raise BenchError("the exporter did not look often enough")
                time.sleep(0.05)
    return {
        "refresh": statistics.median(took),
        "refresh_max": max(took),
        "scrape": statistics.median(scrapes) * 1000,
        "scrape_max": max(scrapes) * 1000,
        "size": size / 1e6,
    }


WORKLOAD = Workload(
    name="exporter",
    title="The exporter with 1,000 partitions and 50 groups",
    about="Every partition has a record and a commit of every group; the exporter looks at Kafka twice"
    " a second while it is scraped. A look must take less than 5 s, a scrape less than 100 ms.",
    contenders=lambda _: ("exporter",),
    figures=(
        Figure("refresh", "a look, median", "s", more=False),
        Figure("refresh_max", "at most", "s", more=False),
        Figure("scrape", "a scrape, median", "ms", more=False),
        Figure("scrape_max", "at most", "ms", more=False),
        Figure("size", "a scrape's size", "MB", more=None),
    ),
    run=run,
    repeats=1,
)
