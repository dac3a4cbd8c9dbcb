"""The exporter on a real broker: what it tells is what Kafka has; losing the broker is told, and heals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from click.testing import CliRunner
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata, TopicPartition

from kombu_kafka import topics
from kombu_kafka.consuming.commit_metadata import encode
from kombu_kafka.options import Options
from scheduler import processes
from scheduler.cli import main
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .conftest import GROUP, LETTERS, TOPIC, health, scrape

PART = {"group": GROUP, "topic": TOPIC, "partition": "0"}


def produce(broker: LocalKafka, topic: str, count: int, **record: object) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    for _ in range(count):
        producer.send(topic, b"[]", **record)
    producer.close()


def commit(broker: LocalKafka, offset: int, metadata: str = "") -> None:
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap, group_id=GROUP, enable_auto_commit=False
    )
    partition = TopicPartition(TOPIC, 0)
    consumer.assign([partition])
    consumer.commit({partition: OffsetAndMetadata(offset, metadata, -1)})
    consumer.close(autocommit=False)


def dlq(broker: LocalKafka, *args: str) -> str:
    """Run `scheduler dlq …` as a person would; return what it prints."""
    environ = {"CELERY_BROKER_URL": broker.url(TOPIC), "CELERY_DEAD_LETTER_TOPIC": LETTERS}
    result = CliRunner().invoke(main, ["dlq", *args], env=environ)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_lag_before_anything_is_committed(broker: LocalKafka, port: int) -> None:
    hour_ago = int((time.time() - 3600) * 1000)
    produce(broker, TOPIC, 20, partition=0, timestamp_ms=hour_ago)
    eventually(lambda: scrape(port).value("kafka_consumer_group_lag", **PART) == 20)
    seconds = eventually(lambda: scrape(port).value("kafka_consumer_group_lag_seconds", **PART))
    assert 3600 <= seconds < 3700
    assert scrape(port).value("kafka_consumer_group_lag", **{**PART, "partition": "1"}) == 0
    assert scrape(port).value("celery_queue_length", queue_name=TOPIC) == 20


def test_lag_is_what_kafka_says_and_metadata_tells_the_rest(broker: LocalKafka, port: int) -> None:
    now = int((time.time() - 60) * 1000)
    produce(broker, TOPIC, 5, partition=0, timestamp_ms=now)
    commit(broker, 22, encode("worker-0@host", 22, [range(23, 25)]))
    page = eventually(
        lambda: (
            (page := scrape(port)).value("kafka_consumer_group_lag", **PART) == 3
            and page.value("kafka_consumer_group_lag_seconds", **PART) is not None
            and page
        )
    )
    options = Options.of(broker.url(TOPIC), {"group_id": GROUP})
    committed, end = topics.lag(options, TOPIC)[0]
    assert committed is not None
    assert end - committed == 3
    assert page.value("kafka_consumer_group_committed_offset", **PART) == 22
    assert page.value("kafka_topic_partition_end_offset", topic=TOPIC, partition="0") == 25
    assert 60 <= page.value("kafka_consumer_group_lag_seconds", **PART) < 160
    assert page.value("kafka_consumer_group_watermark_distance", **PART) == 3
    assert page.value("kafka_consumer_group_unfinished_records", **PART) == 1
    assert page.value("kafka_consumer_group_partition_owner", owner="worker-0@host", **PART) == 1
    assert page.value("kafka_consumer_group_partition_owners", **PART) == 1
    commit(broker, 25)
    eventually(lambda: scrape(port).value("kafka_consumer_group_lag_seconds", **PART) == 0)


def test_members_of_a_group_own_what_is_assigned_to_them(broker: LocalKafka, port: int) -> None:
    consumer = KafkaConsumer(
        TOPIC, bootstrap_servers=broker.bootstrap, group_id="others", client_id="reader"
    )

    def joined() -> bool:
        consumer.poll(timeout_ms=100)
        consumer.commit()
        return scrape(port).value("kafka_consumer_group_members", group="others") == 1

    eventually(joined)
    owners = eventually(
        lambda: (
            consumer.poll(timeout_ms=100) is not None
            and scrape(port).all("kafka_consumer_group_partition_owner", group="others")
        )
    )
    assert {(labels["partition"], labels["owner"]) for labels, _ in owners} == {
        ("0", "reader/127.0.0.1"),
        ("1", "reader/127.0.0.1"),
    }
    consumer.close()
    eventually(lambda: scrape(port).value("kafka_consumer_group_members", group="others") == 0)


def test_dead_letters_are_counted_as_they_arrive(broker: LocalKafka, port: int) -> None:
    # What lies there when it first looks is not new to it.
    eventually(lambda: scrape(port).value("celery_dead_letters", topic=LETTERS) == 0)
    failed = f"{time.time() - 30:.3f}".encode()
    headers = [("task", b"orders.pay"), ("dlq-exception", b"KeyError"), ("dlq-reason", b"failed"),
               ("dlq-failed-at", failed)]  # fmt: skip
    produce(broker, LETTERS, 3, headers=headers)
    labels = {"task": "orders.pay", "exception": "KeyError", "reason": "failed"}
    eventually(lambda: scrape(port).value("celery_dead_letters_arrived_total", **labels) == 3)
    page = eventually(
        lambda: (
            (page := scrape(port)).value("celery_dead_letters", topic=LETTERS) == 3
            and page.value("celery_dead_letters_pending", topic=LETTERS) == 3
            and page
        )
    )
    age = page.value("celery_dead_letters_oldest_age_seconds", topic=LETTERS)
    assert age is not None
    assert 30 <= age < 120
    # A person skips one and replays one, by force twice; one more fails, without an exception.
    broker.create_topic("elsewhere", 1)
    replay = ("replay", "0-1", "--to-topic", "elsewhere")
    for act in (("skip", "0-0", "--why", "a test"), replay, (*replay, "--force")):
        dlq(broker, *act)
    produce(broker, LETTERS, 1, headers=[("task", b"orders.pay"), ("dlq-reason", b"time-limit"),
                                         ("dlq-failed-at", failed)])  # fmt: skip
    labels = {"task": "orders.pay", "exception": "time-limit", "reason": "time-limit"}
    eventually(lambda: scrape(port).value("celery_dead_letters_arrived_total", **labels) == 1)
    page = scrape(port)
    stats = json.loads(dlq(broker, "stats", "--json"))
    assert page.value("celery_dead_letters", topic=LETTERS) == stats["total"] == 4
    assert page.value("celery_dead_letters_pending", topic=LETTERS) == stats["new"] == 2
    age = page.value("celery_dead_letters_oldest_age_seconds", topic=LETTERS)
    assert age is not None
    assert time.time() - 60 < stats["oldest"] + age <= time.time()
    assert {
        (labels["task"], labels["exception"]): count
        for labels, count in page.all("celery_dead_letters_arrived_total")
    } == {
        (group["task"], group["exception"]): group["new"] + group["replayed"] + group["skipped"]
        for group in stats["groups"]
    }
    assert stats["acts"] == {"replayed": {"orders.pay": 2}, "skipped": {"orders.pay": 1}}
    for act, counts in stats["acts"].items():
        found = page.all(f"celery_dead_letters_{act}_total")
        assert {labels["task"]: count for labels, count in found} == counts


def test_the_command_needs_no_more_than_a_broker(broker: LocalKafka, tmp_path: Path) -> None:
    port = processes.free_port()
    environ = {name: text for name, text in os.environ.items() if not name.startswith("CELERY_")}
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "scheduler.cli", "exporter",
             f"--kafka-broker={broker.bootstrap[0]}", f"--port={port}", "--interval=0.5"],
            env=environ,
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=processes.dies_with_parent(),
        )  # fmt: skip
    try:
        eventually(lambda: processes.listens(port) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        eventually(lambda: scrape(port).value("kafka_consumer_group_lag", **PART) == 0)
        assert scrape(port).value("celery_exporter_info", group=GROUP, topic=TOPIC) == 1
    finally:
        code = processes.stop(process, 60)
    assert code == 0, log.read_text()


def test_a_lost_broker_is_told_and_heals(broker: LocalKafka, port: int) -> None:
    eventually(lambda: scrape(port).value("celery_exporter_kafka_up") == 1)
    [node] = broker.nodes
    node.kill()
    eventually(lambda: scrape(port).value("celery_exporter_kafka_up") == 0)
    status, said = health(port)
    assert status == 503
    assert said["kafka"] is False
    # What was seen last stays for a while.
    assert scrape(port).value("kafka_consumer_group_lag", **PART) == 0
    node.start()
    broker.wait()
    produce(broker, TOPIC, 7, partition=0)
    eventually(lambda: scrape(port).value("kafka_consumer_group_lag", **PART) == 7)
    # A broker that has just begun may not answer again in time.
    eventually(lambda: scrape(port).value("celery_exporter_kafka_up") == 1)
    eventually(lambda: health(port)[1]["kafka"])
