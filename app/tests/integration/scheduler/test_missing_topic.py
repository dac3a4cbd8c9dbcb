"""A worker of a plain app whose topic is not there yet: it says so, once, and waits."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .plain_worker import Plain

#: Seconds in which Kafka's client, left to itself, says thirty times that there is no such topic.
SOME_SECONDS = 3.0


@pytest.mark.parametrize("partitions", [[0], None], ids=["bound", "group"])
def test_it_waits_quietly_and_begins_within_seconds(
    kafka: LocalKafka, tmp_path: Path, partitions: list[int] | None
) -> None:
    topic = f"missing-{uuid.uuid4().hex[:8]}"
    other = f"{topic}-there"
    kafka.create_topic(other, 1)
    plain = Plain(
        kafka,
        tmp_path,
        "rpc://",
        topic,
        options={"partitions": partitions},
        settings={"worker_log_format": "%(name)s|%(levelname)s|%(message)s"},
    )

    def lines(name: str) -> list[str]:
        return [line for line in plain.log.read_text().splitlines() if line.startswith(name)]

    def warnings() -> list[str]:
        return lines("kombu_kafka.ownership.absent|WARNING|")

    try:
        plain.start("-P", "solo", "-Q", f"celery,{other}")
        eventually(warnings, 120, what="it says that the topic is missing")
        told_at = time.monotonic()
        # Its other queue is worked on meanwhile.
        assert plain.send("add", 1, 1, queue=other).get(timeout=120) == 2
        time.sleep(max(0.0, told_at + SOME_SECONDS - time.monotonic()))
        (told,) = warnings()
        assert f"The topic {topic} does not exist" in told
        assert "kafka-topics.sh --create" in told
        assert lines("kafka") == []
        kafka.create_topic(topic, 1)
        result = plain.send("add", 2, 2)
        eventually(lambda: lines("kombu_kafka.ownership.absent|INFO"), what="it is found")
        assert result.get(timeout=120) == 4
        assert lines("kafka") == []
    finally:
        plain.stop()
