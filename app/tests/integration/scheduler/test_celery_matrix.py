"""Celery's own features with a plain app, in every pool: one worker a pool, for all its checks."""

from __future__ import annotations

import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from kombu_kafka.options import KAFKA_PYTHON, LIBRDKAFKA
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .plain_worker import Plain, running_redis

POOLS = {"prefork": 2, "threads": 4, "solo": 1, "gevent": 4}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module", params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def plain(
    kafka: LocalKafka, redis: str, pool: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plain]:
    topic = f"matrix-{pool}-{uuid.uuid4().hex[:6]}"
    kafka.create_topic(topic, 2)
    kafka.create_topic(f"{topic}-b", 1)
    # Forked children publish through librdkafka here; in every other test through kafka-python.
    options = {"publisher_client": LIBRDKAFKA if pool == "prefork" else KAFKA_PYTHON}
    queues = ("celery", f"{topic}-b")
    made = Plain(kafka, tmp_path_factory.mktemp(pool), redis, topic, queues, options)
    made.start("-P", pool, "-c", str(POOLS[pool]), "-Q", ",".join(made.queues), "-n", f"{pool}@%h")
    yield made
    made.stop()


def test_tasks_run_from_both_queues(plain: Plain) -> None:
    results = [plain.send("add", number, 1) for number in range(20)]
    results += [plain.send("where", queue=queue) for queue in plain.queues]
    values = [result.get(timeout=120) for result in results]
    assert values[:20] == [number + 1 for number in range(20)]
    assert [value["topic"] for value in values[20:]] == [plain.topic, f"{plain.topic}-b"]


def test_retry_expiry_and_rates(plain: Plain) -> None:
    retried = plain.send("again", 2)
    expired = plain.send("add", 1, 1, expires=-1)
    late = plain.send("work_late", "late", 0.0)
    assert retried.get(timeout=120) == 2
    with pytest.raises(TaskRevokedError):
        expired.get(timeout=120)
    assert late.get(timeout=120) == "late"
    begun = time.time()
    limited = [plain.send("limited", number) for number in range(6)]
    ran = sorted(tuple(result.get(timeout=120)) for result in limited)
    assert [number for number, _ in ran] == list(range(6))
    # A bucket of one, twenty a second. How close together they run is the pool's affair.
    assert max(at for _, at in ran) - begun > 0.2


def test_time_limits(plain: Plain, pool: str) -> None:
    if pool == "prefork":
        soft, hard = plain.send("patient"), plain.send("stubborn")
        with suppress(SoftTimeLimitExceeded):  # its time was up before its first line
            assert soft.get(timeout=120) == "soft"
        with pytest.raises(TimeLimitExceeded):
            hard.get(timeout=120)
    # Celery's other pools know no time limits; the worker lives on in any case.
    assert plain.send("add", 2, 2).get(timeout=120) == 4


def test_a_warm_stop_loses_nothing_and_runs_nothing_twice(plain: Plain, pool: str) -> None:
    """The last test of a pool: its worker ends in it, and another one goes on.

    Celery's prefork pool forgets a task, acknowledged early or late, that is on its way to a child at
    the stop: it runs, and runs again. `scheduler.consumer` waits for it; in a plain app there is at
    most one for each child, and seldom one if every child is busy.
    """
    eventually(lambda: plain.lag() == 0, what="the lag is 0")
    plain.ledger.unlink(missing_ok=True)
    names = [f"{kind}-{number}" for kind in ("early", "late") for number in range(4)]
    for name in names:
        plain.send("work_late" if name.startswith("late") else "work", name, 0.2)
    eventually(lambda: len(plain.noted()) >= POOLS[pool], what="the pool is busy")
    (worker,) = plain.processes
    worker.send_signal(signal.SIGTERM)
    told = _names("start", plain.noted())
    assert worker.wait(120) == 0
    begun, ended = (_names(word, plain.noted()) for word in ("start", "end"))
    assert sorted(begun) == sorted(ended)
    if pool == "solo":  # it hears of it after the task, however many more it could take
        assert len(begun) <= len(told) + 1
    plain.start("-P", "solo", "-Q", ",".join(plain.queues), "-n", f"{pool}-next@%h")
    eventually(lambda: set(_names("end", plain.noted())) == set(names), what="all ran")
    eventually(lambda: plain.lag() == 0, what="the lag is 0")
    again = Counter(_names("end", plain.noted())) - Counter(names)
    assert again.total() <= (POOLS[pool] if pool == "prefork" else 0)


def _names(word: str, lines: list[str]) -> list[str]:
    return [line.split()[1] for line in lines if line.startswith(word)]
