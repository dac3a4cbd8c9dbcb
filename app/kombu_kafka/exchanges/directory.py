"""What the brokers know of topics, asked over the producer's connections: no client of its own.

A command-line tool that sends one request and reads its replies would otherwise wait for a third
client to connect.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import kafka.errors
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    KafkaTimeoutError,
    NotControllerError,
    RetriableError,
    TopicAlreadyExistsError,
    UnknownBrokerIdError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.admin import CreateTopicsRequest
from kafka.protocol.consumer import ListOffsetsRequest
from kafka.protocol.metadata import MetadataRequest
from kafka.structs import TopicPartition

from ..errors import BrokerUnavailableError, PublishError
from ..options import Options
from ..publishing import producer
from ..wording import counted

__all__ = ("Directory", "directory")

#: What time may mend; a broker that has just died is unknown, though others still name it.
_PASSING = (
    RetriableError, NotControllerError, KafkaTimeoutError, UnknownBrokerIdError, KeyError,
)  # fmt: skip
#: Seconds between two attempts at what the brokers could not answer yet (no leader, …).
RETRY_SECONDS = 0.1
#: Seconds for which a topic that was missing counts as missing without another look.
MISSING_SECONDS = 5.0
#: ListOffsets: the offset after the last record.
LATEST = -1
#: Fewest parts of a log that Kafka keeps: it deletes whole segments, closed ones only.
SEGMENT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class _Topic:
    partitions: int
    leaders: Mapping[int, int]
    controller: int


class Directory:
    """Partition counts, end offsets, and the making of topics.

    Arguments:
        options: the brokers.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._counts: dict[str, int] = {}
        self._missing: dict[str, float] = {}

    def partitions(self, topic: str, *, fresh: bool = True) -> int | None:
        """Return the number of partitions of a topic, None if there is no such topic.

        Arguments:
            topic: its name.
            fresh: whether a topic that was missing moments ago is looked for again.

        Raises:
            BrokerUnavailableError: no broker answered within ``connect_timeout``.
        """
        count = self._counts.get(topic)
        if count is not None:
            return count
        if not fresh and time.monotonic() - self._missing.get(topic, 0.0) < MISSING_SECONDS:
            return None
        found = self._describe(topic)
        if found is None:
            self._missing[topic] = time.monotonic()
            return None
        self._counts[topic] = found.partitions
        return found.partitions

    def ensure(self, topic: str, partitions: int, config: Mapping[str, str]) -> int:
        """Return the number of partitions of a topic, which is made if it is missing.

        Raises:
            PublishError: this client may not make it.
            BrokerUnavailableError: no broker answered within ``connect_timeout``.
        """
        count = self.partitions(topic)
        if count is not None:
            return count

        def create() -> bool:
            error = self._ask(_create_topic, topic, partitions, config)
            if error is TopicAlreadyExistsError or error is kafka.errors.NoError:
                return True
            raise error(f"creating the topic {topic}")

        try:
            self._until_answered(create)
        except AuthorizationError as exc:
            raise PublishError(
                f"The topic {topic} is missing, and this client may not create it "
                f"({type(exc).__name__}): create it with {counted(partitions, 'partition')} and "
                f"{', '.join(f'{name}={value}' for name, value in config.items())}, or grant the "
                f"Create operation with kafka-acls.sh."
            ) from exc
        # Its leaders are elected a moment later.
        found = self._until_answered(lambda: self._describe(topic))
        self._counts[topic] = found.partitions
        return int(found.partitions)

    def forget(self, topic: str) -> None:
        """Ask again: the topic is not what it was."""
        self._counts.pop(topic, None)

    def ends(self, topic: str, partitions: Iterable[int]) -> dict[TopicPartition, int] | None:
        """Return the offset after the last record of partitions; None if there is no such topic.

        Raises:
            BrokerUnavailableError: no broker answered within ``connect_timeout``.
        """
        wanted = tuple(partitions)

        def ask() -> dict[TopicPartition, int] | None:
            found = self._topic(topic)
            if found is None:
                return {}
            return {
                TopicPartition(topic, number): self._ask(
                    _end_offset, topic, number, found.leaders[number]
                )
                for number in wanted
            }

        return self._until_answered(ask) or None

    def _describe(self, topic: str) -> _Topic | None:
        found: list[_Topic | None] = []

        def look() -> bool:
            found.append(self._topic(topic))
            return True

        self._until_answered(look)
        return found[-1]

    def _topic(self, topic: str) -> _Topic | None:
        found: _Topic | None = self._ask(_describe_topic, topic)
        return found

    def _ask(self, question: Callable[..., Any], *args: Any) -> Any:
        return producer.shared(self._options).ask(question, *args)

    def _until_answered(self, attempt: Callable[[], Any]) -> Any:
        """Repeat what failed for a passing reason, or gave None, for ``connect_timeout``."""
        deadline = time.monotonic() + self._options.connect_timeout
        while True:
            problem: object = "no leader yet"
            try:
                answer = attempt()
            except _PASSING as exc:
                problem = exc
            except AuthorizationError:
                raise
            except KafkaError as exc:
                raise self._unavailable(exc) from exc
            else:
                if answer is not None:
                    return answer
            if time.monotonic() > deadline:
                raise self._unavailable(problem)
            time.sleep(RETRY_SECONDS)

    def _unavailable(self, problem: object) -> BrokerUnavailableError:
        return BrokerUnavailableError(
            f"Kafka at {', '.join(self._options.hosts)} did not answer within "
            f"{self._options.connect_timeout:g} seconds ({problem}): check the addresses and "
            f"that the brokers are up."
        )


# Run on the producer's network thread.


async def _describe_topic(manager: Any, topic: str) -> _Topic | None:
    request = MetadataRequest(
        topics=[MetadataRequest.MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False
    )
    response = await manager.send(request)
    (found,) = response.topics
    error = kafka.errors.for_code(found.error_code)
    if error is UnknownTopicOrPartitionError:
        return None
    if error is not kafka.errors.NoError:
        raise error(topic)
    leaders = {part.partition_index: part.leader_id for part in found.partitions}
    if -1 in leaders.values():
        raise kafka.errors.LeaderNotAvailableError(topic)
    return _Topic(len(leaders), leaders, response.controller_id)


async def _create_topic(
    manager: Any, topic: str, partitions: int, config: Mapping[str, str]
) -> type[KafkaError]:
    shape = CreateTopicsRequest.CreatableTopic
    metadata = await manager.send(MetadataRequest(topics=[], allow_auto_topic_creation=False))
    request = CreateTopicsRequest(
        topics=[
            shape(
                name=topic,
                num_partitions=partitions,
                replication_factor=-1,
                assignments=[],
                configs=[
                    shape.CreatableTopicConfig(name=name, value=value)
                    for name, value in config.items()
                ],
            )
        ],
        timeout_ms=10_000,
        validate_only=False,
    )
    response = await manager.send(request, node_id=metadata.controller_id)
    (created,) = response.topics
    error: type[KafkaError] = kafka.errors.for_code(created.error_code)
    return error


async def _end_offset(manager: Any, topic: str, partition: int, leader: int) -> int:
    wanted = ListOffsetsRequest.ListOffsetsTopic.ListOffsetsPartition(
        partition_index=partition, current_leader_epoch=-1, timestamp=LATEST
    )
    request = ListOffsetsRequest(isolation_level=0, topics=[(topic, [wanted])], min_version=1)
    response = await manager.send(request, node_id=leader)
    (found,) = response.topics[0].partitions
    error = kafka.errors.for_code(found.error_code)
    if error is not kafka.errors.NoError:
        raise error(f"{topic}-{partition}")
    return int(found.offset)


_lock = threading.Lock()
_directories: dict[Options, Directory] = {}


def directory(options: Options) -> Directory:
    """Return this process's directory of the brokers that `options` name."""
    with _lock:
        return _directories.setdefault(options, Directory(options))
