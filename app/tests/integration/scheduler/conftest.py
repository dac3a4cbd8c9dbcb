"""A system of its own for a test: topics, a producer's app, worker processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from kombu_kafka import topics
from kombu_kafka.options import Options
from scheduler.factory import create_app
from scheduler.local_broker import LocalKafka
from scheduler.local_worker import LocalWorker
from scheduler.settings import Settings


@dataclass
class System:
    """One topic with its dead letters, and the workers a test starts on it."""

    kafka: LocalKafka
    topic: str
    directory: Path
    modules: str
    environ: dict[str, str] = field(default_factory=dict)
    workers: list[LocalWorker] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dead_letter_topic = f"{self.topic}-dlq"
        self.kafka.create_topic(self.dead_letter_topic, 1)
        self.app: Celery = create_app(
            Settings(
                broker_url=self.kafka.url(self.topic),
                topic=self.topic,
                group_id=self.topic,
                app_modules=tuple(self.modules.split(",")),
                dead_letter_topic=self.dead_letter_topic,
            )
        )
        self.app.loader.import_default_modules()

    def group_worker(self, name: str, session_timeout: float, **environ: str) -> LocalWorker:
        """Make a worker that shares the partitions with others."""
        return self.worker(name=name, CELERY_SESSION_TIMEOUT=str(session_timeout), **environ)

    def worker(self, *partitions: int, name: str | None = None, **environ: str) -> LocalWorker:
        """Make a worker of given partitions; the test starts it, the fixture ends it."""
        worker = LocalWorker(
            self.kafka.url(self.topic),
            *partitions,
            name=name,
            directory=self.directory,
            arguments=self.arguments,
            environ={
                "CELERY_APP_MODULE": self.modules,
                "CELERY_GROUP_ID": self.topic,
                "CELERY_DEAD_LETTER_TOPIC": self.dead_letter_topic,
                **self.environ,
                **environ,
            },
        )
        self.workers.append(worker)
        return worker

    def send(self, name: str, *args: Any, **options: Any) -> str:
        """Queue a task; return its id."""
        return str(self.app.tasks[name].apply_async(args, **options).id)

    def lag(self) -> int:
        options = Options.of(self.kafka.url(self.topic), {"group_id": self.topic})
        lags = topics.lag(options, self.topic).values()
        return sum(end - (committed or 0) for committed, end in lags)

    def wait(self, what: str, condition: Callable[[], bool], timeout: float = 120) -> None:
        """Wait for `condition`; a worker that dies or time that runs out fails the test."""
        deadline = time.monotonic() + timeout
        while not condition():
            for worker in self.workers:
                if worker.ready:
                    worker.look()
            if time.monotonic() > deadline:
                logs = "\n".join(worker.log_tail(30) for worker in self.workers)
                pytest.fail(f"{what}: not within {timeout:g} s\n{logs}")
            time.sleep(0.1)

    def wait_done(self, timeout: float = 120) -> None:
        self.wait("lag 0", lambda: self.lag() == 0, timeout)

    def close(self) -> None:
        """End the workers that were started, all at once, and the app."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.stop()
        self.app.close()

    def dead_letters(self) -> list[Any]:
        """Every record of the dead letter topic."""
        consumer = KafkaConsumer(bootstrap_servers=self.kafka.bootstrap)
        try:
            partition = TopicPartition(self.dead_letter_topic, 0)
            consumer.assign([partition])
            consumer.seek_to_beginning()
            end = consumer.end_offsets([partition])[partition]
            records: list[Any] = []
            while consumer.position(partition) < end:
                for batch in consumer.poll(timeout_ms=500).values():
                    records.extend(batch)
            return records
        finally:
            consumer.close()


@pytest.fixture
def modules() -> str:
    """The task modules of a test's system; a test may override it."""
    return "tests.tasks"


@pytest.fixture
def system(kafka: LocalKafka, topic: str, tmp_path: Path, modules: str) -> Iterator[System]:
    made = System(kafka, topic, tmp_path, modules)
    made.environ["LEDGER_FILE"] = str(tmp_path / "ledger")
    yield made
    made.close()


@pytest.fixture
def kafka_value() -> Callable[[Any, str], str]:
    """Read a header of a record as text."""

    def value(record: Any, name: str) -> str:
        return dict(record.headers)[name].decode()  # type: ignore[no-any-return]

    return value
