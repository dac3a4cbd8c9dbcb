"""Which topics there are, asked once: Kafka's client is told of none that isn't there.

A client that is told of one asks for it ten times a second (a producer twice, one of transactions fifty
times), and says each time, as an error, that it was not found.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from kafka.errors import (
    KafkaTimeoutError,
    LeaderNotAvailableError,
    NoError,
    RetriableError,
    UnknownTopicOrPartitionError,
    for_code,
)
from kafka.protocol.metadata import MetadataRequest

__all__ = ("ask", "await_topic", "be_patient", "made", "made_at", "partition_counts")

#: Seconds between two questions after a topic that is being made.
PAUSE = 0.05
#: Seconds between a client's questions after a topic that is gone, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 4.0

#: When this process made a topic, by publishing to it: seconds of the monotonic clock.
_made: dict[str, float] = {}


def ask(manager: Any, seconds: float, question: Callable[..., Any], *args: Any) -> Any:
    """Run a coroutine of requests on a client's network thread; return what it returns.

    Arguments:
        manager: the client's connections.
        seconds: how long it may take.
        question: called there with `manager` and `args`.
        args: anything.

    Raises:
        KafkaError: what the coroutine raised, or that it took longer.
    """
    future = manager.call_soon(question, manager, *args)
    answered = threading.Event()
    future.add_both(lambda _: answered.set())
    if not answered.wait(seconds):
        raise KafkaTimeoutError(f"no answer within {seconds:g} seconds")
    if future.exception is not None:
        raise future.exception
    return future.value


def partition_counts(
    manager: Any, seconds: float, topics: Collection[str], *, make: bool = False
) -> dict[str, int]:
    """Return the number of partitions of those of `topics` that are there.

    Arguments:
        manager: a client's connections.
        seconds: how long the brokers may take.
        topics: which topics.
        make: whether brokers that make topics by themselves are to make the missing ones.

    Raises:
        KafkaError: the brokers did not answer, this client may not ask, or no topic can have such
            a name.
    """
    found: dict[str, int] = ask(manager, seconds, _describe, tuple(topics), make)
    return found


def await_topic(manager: Any, seconds: float, topic: str) -> bool:
    """Have brokers that make topics by themselves make one that is missing; return if it is there.

    Raises:
        KafkaError: the brokers did not answer, this client may not ask, or no topic can have such
            a name.
    """
    deadline = time.monotonic() + seconds
    answered = False
    while True:
        left = deadline - time.monotonic()
        try:
            if partition_counts(manager, max(left, PAUSE), [topic], make=True):
                made(topic)
                return True
            answered = True
        except RetriableError:
            if left <= 0 and not answered:
                raise
        if left <= 0:
            return False
        time.sleep(PAUSE)


def made(topic: str) -> None:
    """Note that a topic is there now: whoever waits for it in this process looks again at once."""
    _made[topic] = time.monotonic()


def made_at(topic: str) -> float:
    """Return when this process last made a topic (seconds of the monotonic clock); 0 if never."""
    return _made.get(topic, 0.0)


def be_patient(client: Any) -> None:
    """Have a consumer ask for a topic that was deleted at a slackening pace."""
    client._cluster.add_listener(_Patience())


class _Patience:
    """Called on the client's network thread whenever the brokers have described its topics."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE
        self._is_due = False

    def __call__(self, cluster: Any) -> None:
        if not cluster._topics - cluster._partitions.keys():
            self._pause = FIRST_PAUSE
        elif cluster._need_update:
            cluster._need_update = False
            if not self._is_due:
                self._is_due = True
                cluster._manager._net.call_later(self._pause, lambda: self._ask_again(cluster))
                self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _ask_again(self, cluster: Any) -> None:
        self._is_due = False
        cluster.request_update()


async def _describe(manager: Any, topics: Collection[str], make: bool) -> dict[str, int]:
    request = MetadataRequest(
        topics=[MetadataRequest.MetadataRequestTopic(name=topic) for topic in topics],
        allow_auto_topic_creation=make,
    )
    response = await manager.send(request)
    counts: dict[str, int] = {}
    for topic in response.topics:
        error = for_code(topic.error_code)
        if error is NoError:
            counts[topic.name] = len(topic.partitions)
        elif not issubclass(error, UnknownTopicOrPartitionError | LeaderNotAvailableError):
            raise error(topic.name)
    return counts
