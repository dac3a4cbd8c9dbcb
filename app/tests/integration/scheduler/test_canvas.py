"""Celery's canvas over Kafka, with results in Redis and over rpc://; beat; children that are replaced."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group, signature

import kombu_kafka
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .plain_worker import Plain, running_redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module", params=["redis", "rpc"])
def plain(
    request: pytest.FixtureRequest,
    kafka: LocalKafka,
    redis: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Plain]:
    """A worker whose children are replaced after ten tasks, and whose number goes up and down."""
    results = redis if request.param == "redis" else "rpc://"
    topic = f"canvas-{request.param}-{uuid.uuid4().hex[:6]}"
    kafka.create_topic(topic, 2)
    settings = {
        "result_persistent": False,
        "beat_schedule": {"tick": {"task": "plain.work", "schedule": 1.0, "args": ["tick", 0.0]}},
    }
    made = Plain(kafka, tmp_path_factory.mktemp("canvas"), results, topic, settings=settings)
    made.start("--autoscale", "3,1", "--max-tasks-per-child", "10", "-n", f"{topic}@%h")
    yield made
    made.stop()


def _sig(plain: Plain, name: str, *args: object) -> signature:
    return signature(f"plain.{name}", args, app=plain.app)


def test_autoscale_is_set_at_run_time(plain: Plain) -> None:
    def ask(command: str, **arguments: int) -> dict[str, str]:
        (answer,) = plain.app.control.broadcast(
            command, arguments=arguments, reply=True, timeout=60, limit=1
        )
        (reply,) = answer.values()
        return dict(reply)

    def sizes() -> tuple[int, int, int]:
        (stats,) = plain.app.control.inspect(timeout=60, limit=1).stats().values()
        scaler = stats["autoscaler"]
        return scaler["min"], scaler["max"], len(stats["pool"]["processes"])

    eventually(plain.app.control.inspect(timeout=5, limit=1).ping, 120, what="the worker answers")
    assert ask("autoscale", max=4, min=2) == {"ok": "autoscale now max=4 min=2"}
    eventually(lambda: sizes() == (2, 4, 2), what="a second process")
    assert ask("autoscale", max=3, min=1) == {"ok": "autoscale now max=3 min=1"}
    if plain.results != "rpc://":
        loads = [plain.send("work", f"load-{number}", 1.0) for number in range(9)]
        eventually(lambda: sizes()[2] == 3, what="a process more, since there is so much to do")
        ran = [load.get(timeout=120) for load in loads]
        assert ran == [f"load-{number}" for number in range(9)]
    # Or half a minute after some load Celery would end one, which may just have been given a task.
    assert ask("autoscale", max=3, min=3) == {"ok": "autoscale now max=3 min=3"}


def add(x: int, y: int) -> int:
    """Stands for the worker's task of this name."""
    raise NotImplementedError


def total(numbers: list[int]) -> int:
    """Stands for the worker's task of this name."""
    raise NotImplementedError


def _task(plain: Plain, function: Any) -> Any:
    return plain.app.task(name=f"plain.{function.__name__}")(function)


def test_chains_groups_chunks_and_maps(plain: Plain) -> None:
    chained = chain(_sig(plain, "add", 1, 2), _sig(plain, "add", 3), _sig(plain, "add", 4))
    assert chained.delay().get(timeout=120) == 10
    grouped = group(_sig(plain, "add", number, number) for number in range(20))
    assert grouped.delay().get(timeout=120) == [2 * number for number in range(20)]
    task = _task(plain, add)
    pairs = [(number, 1) for number in range(6)]
    sums = [number + 1 for number in range(6)]
    assert task.chunks(pairs, 2).group().delay().get(timeout=120) == [sums[:2], sums[2:4], sums[4:]]
    assert task.starmap(pairs).delay().get(timeout=120) == sums
    assert _task(plain, total).map([[1, 2], [3, 4]]).delay().get(timeout=120) == [3, 7]


def test_a_chord(plain: Plain) -> None:
    header = [_sig(plain, "add", number, 1) for number in range(10)]
    if plain.results == "rpc://":
        with pytest.raises(NotImplementedError, match="rpc"):
            chord(header)(_sig(plain, "total"))
        return
    assert chord(header)(_sig(plain, "total")).get(timeout=120) == 55
    piped = chain(group(header[:3]), _sig(plain, "total"), _sig(plain, "add", 100))
    assert piped.delay().get(timeout=120) == 106


def test_bulk_and_children_that_are_replaced(plain: Plain) -> None:
    with kombu_kafka.bulk() as batch:
        results = [plain.send("where") for _ in range(60)]
        assert len(batch) == 60
    pids = {result.get(timeout=120)["pid"] for result in results}
    assert len(pids) > 1  # sixty tasks are more than one child of ten does


def test_beat(plain: Plain) -> None:
    if plain.results == "rpc://":
        return  # beat knows nothing of results
    beat = plain.start("-s", str(plain.directory / "schedule"), command="beat")
    eventually(lambda: plain.noted().count("end tick") >= 3, what="three ticks")
    beat.send_signal(signal.SIGTERM)
    assert beat.wait(120) == 0
