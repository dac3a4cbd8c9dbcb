"""Waiting for many messages at once."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError
from kombu.exceptions import BatchPublishError

import kombu_kafka
from kombu_kafka.errors import PublishError
from kombu_kafka.publishing import batches


class Done:
    """What Kafka's client returns of a record."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def get(self, timeout: float) -> None:
        assert timeout > 0
        if self.error:
            raise self.error


def _add(batch: batches.Bulk, name: str, error: Exception | None = None) -> None:
    batch.add(Done(error), "t", None, [("id", name.encode())], 5)


def test_all_is_well() -> None:
    with kombu_kafka.bulk() as batch:
        assert batches.current() is batch
        _add(batch, "1")
        assert len(batch) == 1
    assert batches.current() is None
    assert len(batch) == 0


def _in_bulk(*errors: Exception | None, then: Exception | None = None) -> None:
    with kombu_kafka.bulk() as batch:
        for number, error in enumerate(errors):
            _add(batch, str(number), error)
        if then is not None:
            raise then


def test_one_error_names_how_many_and_the_first_reason() -> None:
    late = KafkaTimeoutError("no answer")
    says = r"^2 of 3 messages .* the first: The message for t"
    with pytest.raises(kombu_kafka.BulkPublishError, match=says) as missed:
        _in_bulk(None, late, late)
    assert [failure.id for failure in missed.value.failures] == ["1", "2"]
    assert isinstance(missed.value, PublishError)
    assert isinstance(missed.value, BatchPublishError)


def test_an_error_inside_is_what_is_raised() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        _in_bulk(KafkaTimeoutError("no answer"), then=ZeroDivisionError())
    assert "1 of 1 messages" in raised.value.__notes__[0]
    assert batches.current() is None


def test_one_inside_another_waits_for_its_own() -> None:
    with kombu_kafka.bulk() as outer:
        with kombu_kafka.bulk() as inner:
            assert batches.current() is inner
        assert batches.current() is outer


def test_a_full_batch_of_kombus_leaves_at_once() -> None:
    sent: list[Any] = []

    class Channel:
        def basic_publish(self, message: Any, **kwargs: Any) -> None:
            assert batches.current() is not None
            sent.append((message, kwargs))

    batch = batches.PublishBatch(Channel(), 2)
    batch.publish({"n": 1}, routing_key="a")
    assert sent == []
    batch.publish({"n": 2}, routing_key="a")
    assert len(sent) == 2
    batch.publish({"n": 3}, routing_key="a")
    batch.discard()
    batch.flush()
    assert len(sent) == 2
