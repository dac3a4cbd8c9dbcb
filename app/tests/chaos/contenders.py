"""The brokers of the comparison, each a process of its own that can be killed and started again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

from scheduler.local_broker import LocalKafka
from tests.rivals import RabbitMQServer, RedisServer, Server

__all__ = ["Contender", "Ours", "RabbitMQ", "Redis", "TheirKafka"]


class Contender(Protocol):
    """A broker, and how Celery is told of it."""

    name: str
    url: str
    options: dict[str, Any]
    #: Seconds without another task's end after which the rest counts as lost.
    patience: float

    def start(self) -> None:
        """Start it, with nothing in it."""

    def crash(self) -> None:
        """Kill it, or one of its nodes, wait a moment, start it again."""

    def stop(self) -> None:
        """End it."""


class Kafka:
    """Three brokers; the one that leads the queue's first partition is killed."""

    partitions = 1
    patience = 45.0

    def start(self) -> None:
        self.kafka = LocalKafka(3).start()
        self.kafka.create_topic("compare", self.partitions)

    def crash(self) -> None:
        admin = self.kafka.admin()
        topic = admin.describe_topics(["compare"])[0]
        admin.close()
        leader = topic["partitions"][0]["leader_id"]
        node = next(node for node in self.kafka.nodes if node.id == leader)
        node.kill()
        time.sleep(2)
        node.start()

    def stop(self) -> None:
        self.kafka.stop()


class Ours(Kafka):
    """This transport, in a group, in the order `key`."""

    name = "kombu_kafka"
    partitions = 4

    def __init__(self, directory: Path) -> None:
        self._state = directory / "state"

    def start(self) -> None:
        super().start()
        self._state.mkdir()
        self.url = self.kafka.url("compare")
        self.options: dict[str, Any] = {"ordering": "key", "state_directory": str(self._state)}


class TheirKafka(Kafka):
    """kombu's transport for Kafka."""

    name = "confluentkafka"

    def __init__(self, directory: Path) -> None:
        self.options: dict[str, Any] = {}

    def start(self) -> None:
        super().start()
        self.url = f"confluentkafka://{self.kafka.bootstrap[0]}"
        # Its URL takes one host only: the others are told as librdkafka is.
        servers = {"bootstrap.servers": ",".join(self.kafka.bootstrap)}
        # 45 seconds by default: for so long would a killed worker's partitions wait.
        session = {"session.timeout.ms": 6000}
        self.options = {"kafka_common_config": servers, "kafka_consumer_config": session}


class Crash(Server):
    """A single server that comes back with what it had."""

    patience = 45.0

    def crash(self) -> None:
        self.stop()
        time.sleep(2)
        self.start()


class Redis(RedisServer, Crash):
    """Redis, which gives a dead worker's tasks to others after a while."""

    name = "Redis"
    #: kombu looks for tasks whose visibility timeout is over every hundred seconds.
    patience = 150.0

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        #: An hour by default: for so long would tasks of a killed worker wait.
        self.options: dict[str, Any] = {"visibility_timeout": 15}


class RabbitMQ(RabbitMQServer, Crash):
    """RabbitMQ with publisher confirms."""

    name = "RabbitMQ"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.options: dict[str, Any] = {"confirm_publish": True}
