"""What a request does with its record in each way a task can end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    TaskRevokedError,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.utils.serialization import UnpickleableExceptionWrapper
from celery.worker import state
from kafka.errors import KafkaTimeoutError

from scheduler.factory import create_app
from scheduler.request import DeadLetterRequest
from scheduler.settings import Settings
from scheduler.task import WrongArgumentsError


@pytest.fixture
def app() -> Iterator[Celery]:
    app = create_app(Settings(broker_url="kafka://127.0.0.1:1//tasks", partitions=(0,)))

    @app.task(name="work", shared=False)
    def work() -> None:
        pass

    app.finalize()
    yield app
    app.close()


LIMIT = 3


class Record:
    """A request over a message that remembers what was done with it.

    Args:
        attempts: How often the record took its process down before.
    """

    def __init__(self, app: Celery, attempts: int = 0) -> None:
        self.attempts = attempts
        self.fate: list[str] = []
        self.letter: dict[str, Any] = {}
        message = Mock(name="message", delivery_tag=1, content_type="application/json")
        message.headers = {"id": "id-1", "task": "work", "kafka_attempt": attempts + 1}
        message.delivery_info = {"topic": "tasks", "partition": 0, "offset": 7}
        message.properties = {}
        message.body, message.payload = b"[[], {}, {}]", ([], {}, {})
        message.content_encoding = "utf-8"
        message.channel.dead_letter.side_effect = self._dead_letter
        message.channel.delivery_limit = LIMIT
        message.channel.attempt_failed.side_effect = self._attempt_failed
        self.message = message
        self.request = DeadLetterRequest(
            message,
            app=app,
            hostname="worker-0@kafka1",
            task=app.tasks["work"],
            on_ack=lambda *_: self.fate.append("ack"),
            on_reject=lambda _logger, _errors, requeue: self.fate.append(f"reject {requeue}"),
            connection_errors=(OSError,),
        )

    def _dead_letter(self, tag: int, reason: str, headers: dict[str, str]) -> None:
        self.fate.append("dead-letter")
        self.letter = {"reason": reason, **headers}

    def _attempt_failed(self, tag: int) -> int:
        self.attempts += 1
        return self.attempts


def _raised(exc: BaseException) -> ExceptionInfo:
    try:
        raise exc
    except BaseException:  # noqa: BLE001 - SystemExit is one of the cases
        return ExceptionInfo()


def test_success_is_acknowledged(app: Celery) -> None:
    record = Record(app)
    record.request.on_success((False, "result", 0.1))
    assert record.fate == ["ack"]


@pytest.mark.parametrize(
    ("exc", "reason", "message"),
    [
        (ValueError("no such order"), "exception", "no such order"),
        (KafkaTimeoutError("unreachable"), "exception", "KafkaTimeoutError: unreachable"),
        (MemoryError("no more"), "exception", "no more"),
        (Reject("not mine", requeue=False), "rejected", "not mine"),
    ],
)
def test_a_failure_is_dead_lettered_not_acknowledged(
    app: Celery, exc: Exception, reason: str, message: str
) -> None:
    record = Record(app)
    record.request.on_success((True, _raised(exc), 0.1))
    assert record.fate == ["dead-letter"]
    assert record.letter["reason"] == reason
    assert record.letter["message"] == message
    assert record.letter["exception"] == type(exc).__name__
    assert record.letter["worker"] == "worker-0@kafka1"
    assert type(exc).__name__ in record.letter["traceback"]
    assert record.message._state == "REJECTED"


class UnspeakableError(Exception):
    """Its text can't be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_exception_that_cant_be_shown_is_dead_lettered_all_the_same(app: Celery) -> None:
    record = Record(app)
    info = Mock(exception=UnspeakableError(), traceback="where it was")
    record.request.on_failure(info)
    assert record.fate == ["dead-letter"]
    assert record.letter["exception"] == "UnspeakableError"


@pytest.mark.parametrize("exc", [Retry("later"), Ignore(), Terminated("by an operator")])
def test_what_is_not_final_is_acknowledged(app: Celery, exc: Exception) -> None:
    record = Record(app)
    record.request.on_success((True, _raised(exc), 0.1))
    assert record.fate == ["ack"]


def test_a_task_may_give_its_record_back_for_ever(app: Celery) -> None:
    for _ in range(LIMIT + 2):
        record = Record(app)
        record.request.on_success((True, _raised(Reject("wait", requeue=True)), 0.1))
        assert record.fate == ["reject True"]


def test_the_time_limit(app: Celery) -> None:
    record = Record(app)
    record.request.on_failure(_raised(TimeLimitExceeded(5)))  # billiard calls both
    record.request.on_timeout(soft=False, timeout=5)
    assert record.fate == ["dead-letter"]
    assert record.letter["reason"] == "time-limit"
    assert record.letter["message"] == "The task ran longer than 5 seconds."


def test_the_soft_time_limit_is_the_tasks_own_affair(app: Celery) -> None:
    record = Record(app)
    record.request.on_timeout(soft=True, timeout=5)
    assert record.fate == []


@pytest.mark.parametrize("exc", [WorkerLostError("signal 9 (SIGKILL)"), SystemExit(3)])
def test_a_lost_child_gets_three_deliveries(app: Celery, exc: BaseException) -> None:
    for attempts in range(LIMIT - 1):
        record = Record(app, attempts)
        record.request.on_failure(_raised(exc))
        assert record.fate == ["reject True"]
        assert record.attempts == attempts + 1
    record = Record(app, LIMIT - 1)
    record.request.on_failure(_raised(exc))
    assert record.fate == ["dead-letter"]
    assert record.letter["reason"] == "worker-lost"


@pytest.mark.parametrize("failure", [WorkerLostError("gone"), None])
def test_the_last_death_is_recorded_as_a_failure(
    app: Celery, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    marked = Mock()
    monkeypatch.setattr(app.tasks["work"].backend, "mark_as_failure", marked)
    if failure is None:
        assert not Record(app, LIMIT - 1).request.revoked()
        assert not marked.called
        assert Record(app, LIMIT).request.revoked()
    else:
        Record(app).request.on_failure(_raised(failure))
        assert not marked.called
        Record(app, LIMIT - 1).request.on_failure(_raised(failure))
    assert marked.called


def test_what_took_its_whole_worker_down_too_often_never_reaches_the_pool(app: Celery) -> None:
    record = Record(app, LIMIT)
    pool = Mock()
    with pytest.raises(TaskRevokedError):
        record.request.execute_using_pool(pool)
    assert record.fate == ["dead-letter"]
    assert record.letter["reason"] == "delivery-limit"
    assert record.letter["message"] == f"The worker died {LIMIT} times while this task ran."
    assert not pool.apply_async.called


def test_a_task_that_must_not_run_twice_is_dead_lettered_at_once(app: Celery) -> None:
    app.tasks["work"].reject_on_worker_lost = False
    record = Record(app)
    record.request.on_failure(_raised(WorkerLostError("gone")))
    assert record.fate == ["dead-letter"]


@pytest.mark.parametrize("exc", [WorkerLostError("gone"), SystemExit(1), TimeLimitExceeded(1)])
def test_stopping_in_haste_leaves_the_record_for_the_next_start(
    app: Celery, monkeypatch: pytest.MonkeyPatch, exc: BaseException
) -> None:
    monkeypatch.setattr(state, "should_terminate", True)
    record = Record(app)
    if isinstance(exc, TimeLimitExceeded):
        record.request.on_timeout(soft=False, timeout=1)
    else:
        record.request.on_failure(_raised(exc))
    assert record.fate == []
    assert not record.request.acknowledged


def test_a_result_backend_that_is_down_does_not_hold_the_record(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        app.tasks["work"].backend, "mark_as_failure", Mock(side_effect=ConnectionError("down"))
    )
    record = Record(app)
    with pytest.raises(ConnectionError):
        record.request.on_timeout(soft=False, timeout=1)
    assert record.fate == ["dead-letter"]


def test_a_lost_connection_leaves_the_record_for_the_next_one(app: Celery) -> None:
    record = Record(app)
    record.message.channel.dead_letter.side_effect = OSError("connection lost")
    record.request.on_success((True, _raised(ValueError("x")), 0.1))
    assert record.fate == []


def test_a_revoked_task_is_acknowledged(app: Celery) -> None:
    record = Record(app)
    state.revoked.add("id-1")
    try:
        assert record.request.revoked()
    finally:
        state.revoked.discard("id-1")
    assert record.fate == ["ack"]


def test_what_may_be_anothers_by_now_is_given_back_unbegun(app: Celery) -> None:
    record = Record(app)
    record.message.channel.may_begin.return_value = False
    pool = Mock()
    with pytest.raises(TaskRevokedError):
        record.request.execute_using_pool(pool)
    assert record.fate == ["reject True"]
    assert not pool.apply_async.called


@pytest.mark.parametrize("here", [True, False])
def test_what_waited_in_a_pool_of_threads_is_given_back_as_it_would_begin(
    app: Celery, here: bool
) -> None:
    """A child that says that it begins has begun."""
    record = Record(app)
    record.request.execute_using_pool(Mock())
    record.message.channel.may_begin.return_value = False
    if here:
        with pytest.raises(TaskRevokedError):
            record.request.on_accepted(os.getpid(), 0.0)
        assert record.fate == ["reject True"]
    else:
        record.request.on_accepted(os.getpid() + 1, 0.0)
        assert record.fate == []


def test_a_long_traceback_keeps_its_end(app: Celery) -> None:
    record = Record(app)
    info = _raised(ValueError("x"))
    info.traceback = "a" * 100_000 + "the end"
    record.request.on_success((True, info, 0.1))
    assert record.letter["traceback"].endswith("the end")
    assert len(record.letter["traceback"]) < 10_000


def test_retry_after_a_lost_child_is_no_failure(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = app.tasks["work"]
    monkeypatch.setattr(task, "retry_on_worker_lost", True, raising=False)
    monkeypatch.setattr(type(task), "signature_from_request", Mock(), raising=False)
    record = Record(app)
    record.request.on_failure(_raised(WorkerLostError("gone")))
    assert record.fate == ["ack"]


@pytest.mark.parametrize(
    ("exc", "kind"),
    [(TimeoutError("busy"), "passing"), (KafkaTimeoutError("x"), "hard"), (ValueError("x"), None)],
)
def test_a_letter_says_whether_the_error_passes(app: Celery, exc: Exception, kind: str) -> None:
    record = Record(app)
    record.request.on_success((True, _raised(exc), 0.1))
    assert record.letter.get("kind") == kind
    assert record.letter["attempts"] == "1"


def test_wrong_arguments_have_a_reason_of_their_own(app: Celery) -> None:
    record = Record(app)
    record.request.on_success((True, _raised(WrongArgumentsError("too many")), 0.1))
    assert record.letter["reason"] == "arguments"
    assert record.letter["kind"] == "hard"


def test_an_exception_that_is_not_pickled_is_named_all_the_same(app: Celery) -> None:
    record = Record(app)
    wrapped = UnpickleableExceptionWrapper("shop", "CardError", (), "CardError(1)")
    record.request.on_success((True, _raised(wrapped), 0.1))
    assert record.letter["exception"] == "CardError"
