"""What keeps a worker from starting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from celery import Celery, Task

from kombu_kafka import topics
from kombu_kafka.errors import BrokerUnavailableError, PartitionNotFoundError
from scheduler.factory import create_app
from scheduler.preflight import (
    EX_CONFIG,
    EX_UNAVAILABLE,
    StartError,
    check_worker,
    refuse_bad_start,
)
from scheduler.settings import Settings

SETTINGS = Settings(broker_url="kafka://kafka1:9092//tasks", partitions=(0, 5))


@pytest.fixture
def app() -> Iterator[Celery]:
    app = create_app(SETTINGS)
    yield app
    app.close()


@pytest.fixture(autouse=True)
def topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "partition_count", lambda options, topic: 6)


def test_all_is_well(app: Celery) -> None:
    check_worker(app, SETTINGS)


def test_no_partitions_are_bound_in_a_group(app: Celery) -> None:
    check_worker(app, replace(SETTINGS, partitions=None))


def test_a_partition_that_does_not_exist(app: Celery) -> None:
    with pytest.raises(StartError, match=r"partition 6, but the topic tasks has 6 \(0 to 5\)"):
        check_worker(app, replace(SETTINGS, partitions=(0, 6)))


def test_early_acknowledgement_is_refused(app: Celery) -> None:
    @app.task(name="shop.early", shared=False, acks_late=False)
    def early() -> None:
        pass

    with pytest.raises(StartError, match=r"The task shop.early sets acks_late=False"):
        check_worker(app, SETTINGS)


def test_a_base_that_loses_failures_is_refused(app: Celery) -> None:
    @app.task(name="shop.other", shared=False, base=Task)
    def other() -> None:
        pass

    with pytest.raises(StartError, match=r"The task shop.other .* derive that class"):
        check_worker(app, SETTINGS)


@pytest.mark.parametrize(
    ("error", "code"),
    [(BrokerUnavailableError("Away."), EX_UNAVAILABLE), (PartitionNotFoundError("No."), EX_CONFIG)],
)
def test_the_exit_code_says_whether_to_try_again(
    app: Celery,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
) -> None:
    def fail(options: object, topic: str) -> int:
        raise error

    monkeypatch.setattr(topics, "partition_count", fail)
    with pytest.raises(SystemExit) as raised:
        refuse_bad_start(app, SETTINGS)
    assert raised.value.code == code
    assert capsys.readouterr().err == f"scheduler: {error}\n"
