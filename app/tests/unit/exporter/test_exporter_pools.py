"""Asking workers for their pools' sizes: until they have answered, however long that takes."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from scheduler.exporter import pools
from scheduler.exporter.pools import PoolAsker


class Workers:
    """Workers that answer from the third question on."""

    def __init__(self) -> None:
        self.up: set[str] = set()
        self.known: dict[str, int] = {}
        self.questions = 0
        self.answered = threading.Event()

    def ask(self) -> dict[str, int]:
        self.questions += 1
        if self.questions == 1:
            raise OSError("no broker")
        return dict.fromkeys(self.up, 4) if self.questions > 2 else {}

    def take(self, sizes: Mapping[str, int]) -> None:
        self.known |= sizes
        if sizes:
            self.answered.set()

    def unknown(self) -> set[str]:
        return self.up - self.known.keys()


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.setattr(pools, "LOOK_EVERY", 0.005)
    monkeypatch.setattr(pools, "RETRY_SECONDS", 0.01)
    return Workers()


def test_a_worker_that_did_not_answer_is_asked_again(workers: Workers) -> None:
    asker = PoolAsker(workers.ask, workers.take, workers.unknown)
    asker.start()
    workers.up.add("late")
    try:
        assert workers.answered.wait(30)  # ASK_EVERY is 60: these are questions repeated
        assert workers.known == {"late": 4}
    finally:
        asker.stop()


def test_a_worker_that_begins_anew_is_asked_at_once(workers: Workers) -> None:
    workers.questions, workers.up = 2, {"steady"}
    asker = PoolAsker(workers.ask, workers.take, workers.unknown)
    asker.start()
    try:
        assert workers.answered.wait(30)
        workers.answered.clear()
        asker.ask_now()
        assert workers.answered.wait(30)
    finally:
        asker.stop()
