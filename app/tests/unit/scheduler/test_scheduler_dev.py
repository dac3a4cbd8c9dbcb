"""Workers that are started again when they end, but not for ever."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from scheduler import dev
from scheduler.dev import MAX_RESTARTS, RESTART_SECONDS, WITHIN_SECONDS, Supervised
from scheduler.local_worker import LocalWorkerError


class Worker:
    """Stands for a worker that has just ended, or runs."""

    name, log = "worker-0", Path("/logs/worker-0.log")

    def __init__(self, code: int) -> None:
        self.code = code
        self.running, self.ready = False, False
        self.starts = self.stops = 0

    def look(self) -> None:
        if not self.running:
            raise LocalWorkerError("it ended")

    def wait(self, timeout: float) -> int:
        return self.code

    def start(self) -> None:
        self.starts += 1
        self.running = True

    def stop(self) -> None:
        self.stops += 1

    def log_tail(self) -> str:
        return "its last words"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=50.0)
    monkeypatch.setattr(dev, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_one_that_was_killed_is_started_again_and_said_to_be_ready(clock: SimpleNamespace) -> None:
    worker, said = Worker(-9), list[str]()
    supervised = Supervised(worker)  # type: ignore[arg-type]
    supervised.look(said.append)
    assert (worker.starts, worker.stops) == (0, 1)
    assert said == [
        "worker-0 was ended by SIGKILL; it is started again. Its log is /logs/worker-0.log."
    ]
    clock.now += RESTART_SECONDS
    supervised.look(said.append)
    assert worker.starts == 1
    supervised.look(said.append)
    assert len(said) == 1
    worker.ready = True
    for _ in range(3):
        supervised.look(said.append)
    assert said[1:] == ["worker-0 is ready again."]


def test_one_that_ends_again_and_again_is_given_up(clock: SimpleNamespace) -> None:
    worker = Worker(1)
    supervised = Supervised(worker)  # type: ignore[arg-type]

    def end() -> None:
        worker.running = False
        supervised.look(lambda text: None)
        clock.now += RESTART_SECONDS
        supervised.look(lambda text: None)

    for _ in range(3 * MAX_RESTARTS):  # now and then is no reason
        end()
        clock.now += WITHIN_SECONDS / MAX_RESTARTS
    clock.now += WITHIN_SECONDS
    for _ in range(MAX_RESTARTS):
        end()
        assert worker.running
    with pytest.raises(LocalWorkerError, match="ended with code 1, for the 6th time within 120 s"):
        end()


def test_one_that_must_be_mended_is_not_started_again(clock: SimpleNamespace) -> None:
    worker = Worker(78)
    with pytest.raises(LocalWorkerError, match=r"code 78, which .*\nits last words"):
        Supervised(worker).look(lambda text: None)  # type: ignore[arg-type]
    assert not worker.starts
