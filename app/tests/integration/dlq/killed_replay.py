"""Replay letters and be killed at each step in turn; then replay again, as a person would.

Run by test_dlq_replay.py: `python killed_replay.py URL DEAD_LETTER_TOPIC`. Step k has two letters
of its own, 2k and 2k+1. Prints the steps, one a line; the last is the first that nothing kills.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from kafka import KafkaProducer

from kombu_kafka.options import Options
from scheduler.dlq.history import History
from scheduler.dlq.index import Index
from scheduler.dlq.letters import LetterId
from scheduler.dlq.reader import Reader
from scheduler.dlq.replay import Order, replay


class Steps:
    """Counts steps, and kills this process at one of them."""

    def __init__(self, fatal: int) -> None:
        self.fatal, self.seen = fatal, 0

    def step(self) -> None:
        if self.seen == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = function(*args, **kwargs)
            self.step()
            return result

        return wrapped


def act(options: Options, number: int, fatal: int) -> int:
    """Replay a step's two letters in a child process; return how that ended."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        steps = Steps(fatal)
        producer: Any = KafkaProducer
        for name in ("init_transactions", "begin_transaction", "send", "flush"):
            setattr(producer, name, steps.around(getattr(producer, name)))
        client_of = producer.__init__

        def init(self: Any, **settings: Any) -> None:
            client_of(self, **settings)
            manager = self._transaction_manager
            manager.begin_commit = steps.around(manager.begin_commit)

        producer.__init__ = init
        History.refresh = steps.around(History.refresh)  # type: ignore[method-assign]
        ids = [LetterId(0, 2 * number), LetterId(0, 2 * number + 1)]
        with Reader(options) as reader:
            index = Index(options, reader)
            replay(options, reader, index, ids, Order(by=f"step {number}"))
    except BaseException:  # noqa: BLE001 - a child of fork must end here
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(url: str, topic: str) -> None:
    """Go on until a step is not reached any more."""
    options = Options.of(url, {"dead_letter_topic": topic})
    number = 0
    while True:
        ended = act(options, number, fatal=number)
        if ended == 0:
            break
        assert os.WIFSIGNALED(ended), ended
        assert act(options, number, fatal=-1) == 0
        number += 1
    print(number)


main(*sys.argv[1:])
