"""However a worker or its brokers end, no task is lost."""

from __future__ import annotations

import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kombu_kafka.publishing import producer
from scheduler.local_broker import LocalBrokerError, LocalKafka
from tests.eventually import eventually

from .plain_worker import Plain, running_redis

ACKS_LATE = {"task_reject_on_worker_lost": True}


@pytest.fixture(scope="module")
def own_kafka(kafka: LocalKafka) -> Iterator[LocalKafka]:
    """A broker that may be killed. (`kafka` says whether any can run.)"""
    try:
        cluster = LocalKafka().start()
    except LocalBrokerError as exc:
        pytest.fail(str(exc))
    yield cluster
    producer.close_all(1)
    cluster.stop()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


def _system(kafka: LocalKafka, directory: Path, redis: str, **settings: object) -> Plain:
    """A plain app with a journal: what was acknowledged does not run again, committed or not."""
    topic = f"stop-{uuid.uuid4().hex[:6]}"
    kafka.create_topic(topic, 2)
    options = {"state_directory": str(directory / "state")}
    return Plain(
        kafka, directory, redis, topic, options=options, settings={**ACKS_LATE, **settings}
    )


def _ended(plain: Plain) -> Counter[str]:
    return Counter(line.split()[1] for line in plain.noted() if line.startswith("end"))


@pytest.mark.parametrize(
    ("signals", "settings"),
    [
        ([signal.SIGQUIT], {}),  # cold
        (
            [signal.SIGTERM],
            {"worker_soft_shutdown_timeout": 1, "worker_enable_soft_shutdown_on_idle": True},
        ),
        ([signal.SIGKILL], {}),
    ],
    ids=["cold", "soft", "killed"],
)
@pytest.mark.slow
def test_a_stop_in_haste_loses_nothing(
    kafka: LocalKafka,
    redis: str,
    tmp_path: Path,
    signals: list[signal.Signals],
    settings: dict[str, object],
) -> None:
    """Tasks that are acknowledged late run again if they were not acknowledged, no others."""
    plain = _system(kafka, tmp_path, redis, **settings)
    plain.options["session_timeout"] = 6  # what a killed worker holds goes to another after it
    try:
        worker = plain.start("-c", "2", "-n", "first@%h")
        names = [f"task-{number}" for number in range(8)]
        for name in names:
            plain.send("work_late", name, 0.5)
        # More than may run again: those that were acknowledged do not.
        eventually(lambda: len(_ended(plain)) >= 4, what="four ended")
        for sig in signals:
            worker.send_signal(sig)
        worker.wait(120)
        plain.start("-P", "solo", "-n", "second@%h")
        eventually(lambda: set(_ended(plain)) == set(names), what="all ran")
        eventually(lambda: plain.lag() == 0, what="the lag is 0")
        ended = _ended(plain)
        # What two children had in hand, running or ended and not acknowledged yet.
        assert sum(ended.values()) <= len(names) + 2
    finally:
        plain.stop()


@pytest.mark.slow
def test_brokers_that_go_and_come_back_at_any_moment(
    own_kafka: LocalKafka, redis: str, tmp_path: Path
) -> None:
    plain = _system(own_kafka, tmp_path, redis)
    (node,) = own_kafka.nodes
    try:
        node.kill()  # before a worker ever saw it
        plain.start("-c", "2", "-n", "steady@%h")
        node.start()
        own_kafka.wait()
        results = [plain.send("work_late", f"before-{number}", 0.0) for number in range(5)]
        results.append(plain.send("work_late", "during", 3.0))  # acknowledged while it is away
        eventually(lambda: "start during" in plain.noted(), what="it runs")
        node.kill()
        eventually(lambda: _ended(plain)["during"], what="it ends")
        node.start()
        own_kafka.wait()
        results += [plain.send("work_late", f"after-{number}", 0.0) for number in range(5)]
        for result in results:
            result.get(timeout=120)
        eventually(lambda: plain.lag() == 0, what="the lag is 0")
        ended = _ended(plain)
        assert len(ended) == 11
        assert ended["during"] == 1
    finally:
        plain.stop()
