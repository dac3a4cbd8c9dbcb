"""Publishing through librdkafka (the package confluent-kafka), for those who install it.

A confirmed publish costs a fraction of kafka-python's. Whoever waits for a confirmation fetches what the
brokers have answered, for everybody who waits; so no thread of Python's lies between the broker's
answer and the publisher.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection
from typing import Any

import kafka.errors
from confluent_kafka import KafkaError as Fault
from confluent_kafka import KafkaException
from confluent_kafka import Producer as LibProducer
from kafka.errors import (
    KafkaConfigurationError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    UnknownTopicOrPartitionError,
)

from ..clients.handshake import reaching, require_access
from ..clients.librdkafka import refuse_greenlets, settings
from ..options import Options
from ..record import Headers
from . import client

__all__ = ("LibRdKafka",)

#: Seconds of a wait, after which it is looked whether somebody else fetched what is waited for.
SLICE_SECONDS = 0.1
#: Records taken between two looks at what was answered, where nobody waits.
TAKEN_UNSEEN = 64
#: Seconds for what nobody waited for to leave when the process ends.
EXIT_SECONDS = 5.0
#: Bytes of messages for one partition that leave together, where they don't wait for each other.
BATCH_BYTES = 16_384

#: Errors that librdkafka finds by itself, in kafka-python's words.
_OWN_ERRORS: dict[int, type[KafkaError]] = {
    Fault._MSG_TIMED_OUT: KafkaTimeoutError,
    Fault._TIMED_OUT: KafkaTimeoutError,
    Fault._TRANSPORT: KafkaConnectionError,
    Fault._ALL_BROKERS_DOWN: KafkaConnectionError,
    Fault._UNKNOWN_TOPIC: UnknownTopicOrPartitionError,
    Fault._UNKNOWN_PARTITION: UnknownTopicOrPartitionError,
}
#: What it says of records because of another, fatal error.
_CONSEQUENCES = (Fault._FATAL, Fault._PURGE_QUEUE, Fault._PURGE_INFLIGHT)


class _Report:
    """What became of one record; a :class:`~.client.Confirmation`."""

    __slots__ = ("_fault", "_line", "done")

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._fault: Fault | None = None
        self.done = False

    def __call__(self, fault: Fault | None, _message: object) -> None:
        self._fault = fault
        self.done = True

    def get(self, timeout: float) -> None:
        """Wait until the record is confirmed."""
        if not self.done:
            self._line.wait(self, timeout)
        if self._fault is not None:
            raise self._line.error(self._fault)


class _Line:
    """A producer of librdkafka's, and those who wait for its reports.

    Arguments:
        told: settings.

    Raises:
        KafkaConfigurationError: a setting has a value it can't have.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self._fatal: Fault | None = None
        self._turn = threading.Condition(threading.Lock())
        #: Until when the thread that takes reports in is expected to: one that an exception ended in a
        #: bad moment keeps nobody waiting.
        self._fetching_until = 0.0
        self.closed = False
        try:
            self.client = LibProducer(told)
        except KafkaException as exc:
            raise KafkaConfigurationError(exc.args[0].str()) from None
        _lines.add(self)

    @property
    def failed(self) -> bool:
        return self._fatal is not None

    def wait(self, report: _Report, timeout: float) -> None:
        """Wait for a report.

        Raises:
            KafkaTimeoutError: it did not come in time.
        """
        deadline = time.monotonic() + timeout
        while not report.done:
            left = deadline - time.monotonic()
            if left <= 0:
                raise KafkaTimeoutError(f"no confirmation within {timeout:g} seconds")
            self.fetch(min(left, SLICE_SECONDS), report)

    def fetch(self, seconds: float, report: _Report | None = None) -> None:
        """Take in reports, or let another thread do it that has begun; wait for some, or for `report`."""
        mine = False
        try:
            with self._turn:
                if report is not None and report.done:
                    return
                now = time.monotonic()
                if now < self._fetching_until:
                    self._turn.wait(seconds)
                    return
                self._fetching_until, mine = now + seconds + SLICE_SECONDS, True
            self._hear(self.client.poll, seconds)
        finally:
            if mine:
                with self._turn:
                    self._fetching_until = 0.0
                    self._turn.notify_all()

    def error(self, fault: Fault) -> KafkaError:
        """Return what kafka-python would have raised."""
        code = fault.code()
        if code in _CONSEQUENCES and self._fatal is not None:
            fault = self._fatal
            code = fault.code()
        kind = kafka.errors.for_code(code) if code > 0 else _OWN_ERRORS.get(code, KafkaError)
        error: KafkaError = kind(fault.str())
        return error

    def listen(self) -> None:
        """Take in what librdkafka has to say by now, whoever else does."""
        self._hear(self.client.poll, 0)

    def retire(self, timeout: float) -> None:
        """Let what it has be confirmed or fail; returns at once. It ends when nobody needs it."""
        threading.Thread(
            target=self._hear,
            args=(self.client.flush, timeout),
            name="kombu-kafka-retired",
            daemon=True,
        ).start()

    def close(self, timeout: float) -> None:
        """Send what is left; what is not sent then has failed. (It ends with its last reference.)"""
        self.closed = True
        self._hear(self.client.flush, timeout)
        if len(self.client):
            self.client.purge()
            self._hear(self.client.flush, 1)

    def _hear(self, reports: Callable[[float], object], seconds: float) -> None:
        """Have librdkafka report; it tells once, and whoever comes first, that it sends nothing more."""
        try:
            reports(seconds)
        except KafkaException as exc:
            if not exc.args[0].fatal():
                raise
            self._fatal = exc.args[0]


class LibRdKafka:
    """A :class:`~.client.Client`.

    Arguments:
        options: the brokers and how long to wait for them.
        bulk: whether messages wait a moment for others, so that many leave in one request.
        other: returns a producer of kafka-python's. It is asked what librdkafka can't be, and has
            topics made where the brokers do that.

    Raises:
        AuthenticationError: the brokers don't let this client in.
        ConfigurationError: it can't work in this process.
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """

    def __init__(self, options: Options, *, bulk: bool, other: Callable[[], client.Client]) -> None:
        refuse_greenlets()
        self._options, self._bulk, self._other = options, bulk, other
        #: Topic → number of its partitions, and when that was asked.
        self._topics: dict[str, tuple[int, float]] = {}
        self._taken = 0
        with reaching(options):
            _wait_for_brokers(options)
            self._line = self._open()

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
    ) -> _Report:
        """Take a record; see :class:`~.client.Client`."""
        if not self._has(topic, partition):
            self._look_for(topic, partition)
        line = self._line
        report = _Report(line)
        number = -1 if partition is None else partition
        record = topic, value, key, number, report, report, 0, headers or None
        try:
            self._hand_over(line, record)
        except UnknownTopicOrPartitionError:
            # What librdkafka knows of the topic is older than what we do.
            self._look_for(topic, partition)
            self._hand_over(line, record)
        self._taken += 1
        if not self._taken % TAKEN_UNSEEN:
            line.fetch(0)
        return report

    def require(self, topic: str, partition: int | None) -> None:
        """Make sure that a topic and a partition are there; see :class:`~.client.Client`."""
        _, asked = self._topics.get(topic, (0, 0.0))
        if (time.monotonic() - asked) * 1000 > client.METADATA_MAX_AGE_MS:
            self._topics.pop(topic, None)
        if not self._has(topic, partition):
            self._look_for(topic, partition)

    def ask(self, question: Callable[..., Any], *args: Any) -> Any:
        """Run a coroutine of requests; see :class:`~.client.Client`."""
        return self._other().ask(question, *args)

    @property
    def failed(self) -> bool:
        """Whether librdkafka sends nothing more, after a fatal error."""
        return self._line.failed

    def forget(self, topics: Collection[str]) -> None:
        """Ask the brokers for these topics no longer: librdkafka does so for as long as it lives."""
        if not self._topics.keys().isdisjoint(topics):
            old, self._line = self._line, self._open()
            self._topics.clear()
            old.retire(self._options.publish_timeout + EXIT_SECONDS)

    def close(self, timeout: float) -> None:
        """Send what is left and end."""
        self._line.close(timeout)

    def _open(self) -> _Line:
        options = self._options
        request_timeout_ms = client.request_timeout_ms(options)
        return _Line(
            {
                **settings(options),
                "acks": "all",
                "enable.idempotence": True,
                "retries": client.RETRIES,
                "retry.backoff.ms": client.RETRY_BACKOFF_MS,
                "retry.backoff.max.ms": client.RETRY_BACKOFF_MS,
                "delivery.timeout.ms": int(options.publish_timeout * 1000),
                "socket.timeout.ms": request_timeout_ms,
                "socket.connection.setup.timeout.ms": max(1000, request_timeout_ms),
                "socket.nagle.disable": True,
                "message.max.bytes": options.max_message_bytes + client.OVERHEAD_BYTES,
                "linger.ms": client.BULK_LINGER_MS if self._bulk else 0,
                "batch.size": client.BULK_BATCH_BYTES if self._bulk else BATCH_BYTES,
                # As kafka-python's: a key's partition is the same with both, and with Kafka's own.
                "partitioner": "murmur2_random",
                "sticky.partitioning.linger.ms": 0,
                "topic.metadata.refresh.interval.ms": client.METADATA_MAX_AGE_MS,
                "topic.metadata.propagation.max.ms": int(client.TOPIC_SECONDS * 1000),
            }
        )

    def _hand_over(self, line: _Line, record: tuple[Any, ...]) -> None:
        deadline = time.monotonic() + self._options.publish_timeout
        while True:
            try:
                line.client.produce(*record)
                return
            except BufferError:
                if time.monotonic() > deadline:
                    raise KafkaTimeoutError("too many messages wait to be confirmed") from None
                line.fetch(SLICE_SECONDS)
            except KafkaException as exc:
                line.listen()  # what was fatal comes with the reports
                raise line.error(exc.args[0]) from None

    def _has(self, topic: str, partition: int | None) -> bool:
        count, _ = self._topics.get(topic, (0, 0.0))
        return count > 0 if partition is None else 0 <= partition < count

    def _look_for(self, topic: str, partition: int | None) -> None:
        self._look(topic)
        if not self._has(topic, partition):
            # It waits for what is new, and says what is wrong.
            self._other().require(topic, partition)
            self._look(topic)

    def _look(self, topic: str) -> None:
        """Ask how many partitions a topic has; librdkafka learns it, too."""
        try:
            found = self._line.client.list_topics(topic, self._options.connect_timeout)
        except KafkaException as exc:
            raise self._line.error(exc.args[0]) from None
        described = found.topics.get(topic)
        if described is None or described.error is not None:
            self._topics.pop(topic, None)
        else:
            self._topics[topic] = len(described.partitions), time.monotonic()


def _wait_for_brokers(options: Options) -> None:
    """Wait until a broker answers: librdkafka itself would only find out with the first message.

    Raises:
        KafkaTimeoutError: none did within ``connect_timeout``.
    """
    deadline = time.monotonic() + options.connect_timeout
    while not require_access(options):
        if time.monotonic() > deadline:
            raise KafkaTimeoutError("no answer")
        time.sleep(0.1)


#: The lines of this process, as long as they live.
_lines: weakref.WeakSet[_Line] = weakref.WeakSet()


@atexit.register
def _send_what_is_left() -> None:
    for line in list(_lines):
        if not line.closed:
            line.close(EXIT_SECONDS)


def _after_fork_in_child() -> None:
    """Keep the parent's producers for ever: to end one is to join its threads, which aren't here."""
    global _lines
    for line in list(_lines):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(line.client))
    _lines = weakref.WeakSet()


os.register_at_fork(after_in_child=_after_fork_in_child)
