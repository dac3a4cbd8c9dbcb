"""The base of all tasks: where a retry goes, what a hard error is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from kafka.errors import KafkaTimeoutError
from kombu.exceptions import OperationalError

from kombu_kafka.errors import BrokerUnavailableError
from scheduler import DeadLetterTask
from scheduler.factory import create_app
from scheduler.settings import Settings
from scheduler.task import Origin, WrongArgumentsError, is_hard, is_passing


@pytest.fixture
def app() -> Iterator[Celery]:
    app = create_app(Settings(broker_url="kafka://127.0.0.1:1//tasks"))
    yield app
    app.close()


@pytest.fixture
def task(app: Celery) -> Any:
    @app.task(name="work", bind=True, shared=False)
    def work(self: Any) -> str:
        return str(self.origin)

    app.finalize()
    return app.tasks["work"]


def _run(task: Any, **request: Any) -> Any:
    task.push_request(id="id-1", called_directly=False, args=(), kwargs={}, **request)
    try:
        return task()
    finally:
        task.pop_request()


def _retry(task: Any, queue: str | None = None, **request: Any) -> dict[str, Any]:
    task.push_request(id="id-1", called_directly=False, args=(), kwargs={}, **request)
    try:
        return dict(task.signature_from_request(queue=queue).options)
    finally:
        task.pop_request()


def test_it_is_the_base_of_every_task(task: Any) -> None:
    assert isinstance(task, DeadLetterTask)
    assert task.acks_late
    assert task.reject_on_worker_lost


def test_a_task_knows_its_record(task: Any) -> None:
    origin = Origin("tasks", 3, 17)
    ran = _run(task, kafka_topic="tasks", kafka_partition=3, kafka_offset=17)
    assert ran == str(origin) == "topic tasks, partition 3, offset 17"


def test_a_task_called_directly_has_no_record(task: Any) -> None:
    assert task() == "None"


def test_a_retry_keeps_the_key_and_the_partition(task: Any) -> None:
    options = _retry(task, kafka_key="order-42", kafka_partition=3, kafka_topic="tasks")
    assert options["partition_key"] == "order-42"
    assert options["partition"] == 3


def test_a_retry_without_a_key_keeps_the_partition(task: Any) -> None:
    options = _retry(task, kafka_key=None, kafka_partition=3, kafka_topic="tasks")
    assert options["partition"] == 3
    assert "partition_key" not in options


def test_a_retry_into_another_queue_does_not_keep_the_partition(task: Any) -> None:
    options = _retry(task, "slow", kafka_key=None, kafka_partition=3, kafka_topic="tasks")
    assert "partition" not in options


@pytest.mark.parametrize(
    "exc", [KafkaTimeoutError("x"), BrokerUnavailableError("x"), OperationalError("x")]
)
def test_a_hard_error_is_recorded_with_its_record_and_not_retried(
    app: Celery, exc: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        raise exc

    app.task(name="hard", shared=False, autoretry_for=(Exception,), max_retries=5)(work)
    app.finalize()
    with pytest.raises(type(exc)):
        _run(app.tasks["hard"], kafka_topic="tasks", kafka_partition=3, kafka_offset=17)
    assert "topic tasks, partition 3, offset 17" in caplog.text


class CardStolenError(Exception):
    """No retry mends it."""


@pytest.fixture
def charge(app: Celery) -> Any:
    @app.task(
        name="charge", bind=True, shared=False, autoretry_for=(Exception,), hard=(CardStolenError,),
        max_retries=5,
    )  # fmt: skip
    def charge(self: Any, exc: Exception | None = None) -> None:
        if exc is not None:
            raise exc

    app.finalize()
    return app.tasks["charge"]


def _fail(task: Any, *args: Any, **kwargs: Any) -> Any:
    task.push_request(id="id-1", called_directly=False, args=args, kwargs=kwargs, retries=0)
    try:
        return task(*args, **kwargs)
    finally:
        task.pop_request()


@pytest.mark.parametrize("exc", [CardStolenError("x"), KafkaTimeoutError("x")])
def test_an_error_declared_hard_is_never_retried(charge: Any, exc: Exception) -> None:
    with pytest.raises(type(exc)):
        _fail(charge, exc)
    charge.push_request(id="id-1", called_directly=False, args=(), kwargs={}, retries=0)
    with pytest.raises(type(exc)):
        charge.retry(exc=exc)
    charge.pop_request()
    assert is_hard(charge, exc)
    assert not is_passing(charge, exc)


def test_what_passes(charge: Any, task: Any) -> None:
    for exc in (ConnectionRefusedError(), TimeoutError()):
        assert is_passing(task, exc)
        assert not is_hard(task, exc)
    # Retried on everything, so nothing is said of this one.
    assert not is_passing(charge, ValueError())
    assert not is_hard(charge, ValueError())


def test_autoretry_for_says_what_passes(app: Celery) -> None:
    @app.task(name="mail", shared=False, autoretry_for=(LookupError,))
    def mail() -> None:
        """Nothing."""

    app.finalize()
    assert is_passing(app.tasks["mail"], KeyError("x"))


def test_wrong_arguments_are_a_hard_error(charge: Any) -> None:
    with pytest.raises(WrongArgumentsError) as raised:
        _fail(charge, 1, 2, no="such")
    assert is_hard(charge, raised.value)


def test_a_task_without_typing_takes_what_comes(app: Celery) -> None:
    @app.task(name="loose", shared=False, typing=False)
    def loose(one: int) -> None:
        """Nothing."""

    app.finalize()
    with pytest.raises(TypeError) as raised:
        _fail(app.tasks["loose"])
    assert not isinstance(raised.value, WrongArgumentsError)
