"""Send tasks through the running system and check what comes out: all of it, in order, lag 0."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from kafka.errors import TopicAlreadyExistsError
from kafka.structs import TopicPartition

from kombu_kafka import topics
from kombu_kafka.clients.consumers import new_consumer
from kombu_kafka.clients.fetching import poll
from kombu_kafka.clients.handshake import reaching
from kombu_kafka.options import Options
from scheduler import smoke_tasks
from scheduler.broker import broker_options
from scheduler.examples.orders import STEPS
from scheduler.smoke_tasks import RECEIPTS_TOPIC, Receipt

__all__ = ["PartitionResult", "Progress", "SmokeResult", "judge", "run"]

#: What is told while it runs: the stage, how much of it is done, how much there is.
Progress = Callable[[str, int, int], None]

#: Partitions of the receipts' topic, and how long it keeps them (a day).
RECEIPTS = {"num_partitions": 3, "replication_factor": -1, "configs": {"retention.ms": "86400000"}}


@dataclass
class PartitionResult:
    """What was seen of one partition."""

    partition: int
    sent: int
    done: int = 0
    repeats: int = 0
    lag: int | None = None
    hosts: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    disorder: str | None = None

    @property
    def in_order(self) -> bool:
        return self.disorder is None


@dataclass
class SmokeResult:
    """What was seen of a run."""

    run: str
    topic: str
    seconds: float
    partitions: list[PartitionResult]

    @property
    def fault(self) -> str | None:
        """One sentence about what is wrong; None if nothing is."""
        for part in self.partitions:
            where = f"partition {part.partition} of {self.topic}"
            if part.done < part.sent:
                return (
                    f"{part.sent - part.done} of {part.sent} tasks of {where} have not run after"
                    f" {self.seconds:.0f} s: look at its worker and at the dead letter topic."
                )
            if part.disorder:
                return f"The tasks of {where} did not run in order: {part.disorder}."
            if part.lag != 0:
                lag = "unknown" if part.lag is None else part.lag
                return f"All tasks of {where} ran, but its lag is {lag} after {self.seconds:.0f} s."
        return None


def run(
    app: Celery, *, tasks: int, timeout: float, progress: Progress = lambda *_: None
) -> SmokeResult:
    """Send `tasks` tasks evenly over all partitions, wait for them, and judge.

    Raises:
        KombuKafkaError: The brokers can't be reached, or the topic does not exist.
    """
    started = time.monotonic()
    options = broker_options(app)
    topic = app.conf.task_default_queue
    name = uuid.uuid4().hex[:8]
    count = topics.partition_count(options, topic)
    shares = [tasks // count + (number < tasks % count) for number in range(count)]
    _create_receipts_topic(options)
    with reaching(options), _Receipts(options, name) as receipts:
        _send(app, name, shares, progress)
        seen = receipts.collect(tasks, started + timeout, progress)
    lags = _wait_for_lag(options, topic, started + timeout, progress)
    parts = [
        judge(number, sent, [one for one in seen if one.partition == number])
        for number, sent in enumerate(shares)
    ]
    for part in parts:
        part.lag = lags.get(part.partition)
    return SmokeResult(name, topic, time.monotonic() - started, parts)


def judge(partition: int, sent: int, receipts: Iterable[Receipt]) -> PartitionResult:
    """Say what the receipts of one partition, in the order they were written, prove."""
    result = PartitionResult(partition, sent)
    seen: set[int] = set()
    last: Receipt | None = None
    for receipt in receipts:
        for name, names in ((receipt.host, result.hosts), (receipt.unit, result.units)):
            if name not in names:
                names.append(name)
        if receipt.sequence in seen:
            result.repeats += 1
            # A repeat is right when its task was the last to run, in flight when something died.
            if last is not None and receipt.offset < last.offset:
                result.disorder = f"offset {receipt.offset} ran again after {last.offset}"
            continue
        seen.add(receipt.sequence)
        if last is not None:
            if receipt.offset < last.offset or receipt.sequence < last.sequence:
                result.disorder = f"offset {receipt.offset} ran after {last.offset}"
            elif receipt.host == last.host and receipt.started < last.finished:
                result.disorder = f"offset {receipt.offset} began before {last.offset} had ended"
        last = receipt
    result.done = len(seen)
    return result


def _create_receipts_topic(options: Options) -> None:
    with topics.admin_client(options) as admin, suppress(TopicAlreadyExistsError):
        admin.create_topics({RECEIPTS_TOPIC: RECEIPTS})
        admin.wait_for_topics([RECEIPTS_TOPIC])


def _send(app: Celery, name: str, shares: list[int], progress: Progress) -> None:
    """Send every partition's tasks in order, the partitions side by side."""
    total, sent = sum(shares), 0
    task = app.tasks[smoke_tasks.advance.name]
    rounds = range(max(shares, default=0))

    def send(partition: int, sequence: int) -> None:
        order, step = divmod(sequence, len(STEPS))
        task.apply_async(
            (name, sequence, f"order-{partition}-{order}", STEPS[step]), partition=partition
        )

    with ThreadPoolExecutor(max_workers=8) as pool:
        for sequence in rounds:
            # One of each partition at a time: within a partition the order of sending is kept.
            targets = [number for number, share in enumerate(shares) if sequence < share]
            list(pool.map(send, targets, [sequence] * len(targets)))
            sent += len(targets)
            progress("sending", sent, total)


class _Receipts:
    """Reads the receipts of one run, from where the topic ended when it began."""

    def __init__(self, options: Options, name: str) -> None:
        self._run = name
        self._client = new_consumer(options)
        numbers = self._client.partitions_for_topic(RECEIPTS_TOPIC) or {0}
        where = [TopicPartition(RECEIPTS_TOPIC, number) for number in sorted(numbers)]
        self._client.assign(where)
        self._client.seek_to_end()
        for partition in where:
            self._client.position(partition)  # the end is looked up now, before anything is sent

    def collect(self, tasks: int, deadline: float, progress: Progress) -> list[Receipt]:
        """Read until every task has run once, or until `deadline`."""
        receipts: list[Receipt] = []
        done: set[tuple[int, int]] = set()
        while len(done) < tasks and time.monotonic() < deadline:
            for records in poll(self._client, timeout_ms=200).values():
                receipts.extend(one for record in records if (one := self._read(record)))
            done = {(receipt.partition, receipt.sequence) for receipt in receipts}
            progress("running", len(done), tasks)
        return receipts

    def _read(self, record: Any) -> Receipt | None:
        try:
            receipt = Receipt.from_json(record.value)
        except (TypeError, ValueError):
            return None  # somebody else's
        return receipt if receipt.run == self._run else None

    def __enter__(self) -> _Receipts:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close(autocommit=False)


def _wait_for_lag(
    options: Options, topic: str, deadline: float, progress: Progress
) -> dict[int, int]:
    """Wait until the group has no lag on the topic, or until `deadline`; return what is left."""
    while True:
        lags = {
            number: end - (committed or 0)
            for number, (committed, end) in topics.lag(options, topic).items()
        }
        progress("lag", sum(lags.values()), 0)
        if not any(lags.values()) or time.monotonic() > deadline:
            return lags
        time.sleep(0.5)
