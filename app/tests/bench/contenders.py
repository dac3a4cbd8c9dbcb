"""Who is compared: a broker, the Celery transport that speaks to it, and how both are set up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kombu_kafka.options import LIBRDKAFKA
from scheduler.local_broker import LocalKafka
from tests.rivals import RabbitMQServer, RedisServer

__all__ = ["BARE", "CONFLUENT", "OURS", "OURS_FAST", "RABBITMQ", "REDIS", "Contender", "Servers"]

OURS, RABBITMQ, REDIS, CONFLUENT = "kombu-kafka", "RabbitMQ", "Redis", "confluentkafka"
#: Ours, publishing through librdkafka.
OURS_FAST = f"{OURS} + librdkafka"

#: Kafka's clients without Celery: what bounds whoever is built on them.
BARE = ("kafka-python", "confluent-kafka")

#: A broker as it would run, not as small as a test's.
JVM = ("-Xms512m", "-Xmx1g", "-XX:TieredStopAtLevel=4")


@dataclass(frozen=True)
class Contender:
    """How Celery is told of a broker.

    Attributes:
        name: What it is called in tables.
        url: The URL for a queue.
        options: `broker_transport_options` for a worker with this state directory.
        pids: Processes of the server.
    """

    name: str
    url: Callable[[str], str]
    options: Callable[[Path], dict[str, Any]]
    pids: tuple[int, ...] = field(default=())


class Servers:
    """One node of each broker, all running side by side while the bench does."""

    def __init__(self, directory: Path) -> None:
        self._stack = ExitStack()
        self._directory = directory
        # A commit of offsets a second for each of many groups is no reason to make 50 partitions.
        self.kafka = LocalKafka(1, directory=self._made("kafka"))
        self.contenders: dict[str, Contender] = {}

    def __enter__(self) -> Servers:
        for node in self.kafka.nodes:
            node.jvm = JVM
        redis = RedisServer(self._made("redis"))
        rabbitmq = RabbitMQServer(self._made("rabbitmq"))
        try:
            for server in (self.kafka, redis, rabbitmq):
                self._stack.callback(server.stop)
                server.start()
        except BaseException:
            self._stack.close()
            raise
        bootstrap = self.kafka.bootstrap[0]
        for contender in (
            Contender(OURS, self.kafka.url, lambda state: {"state_directory": str(state)}),
            Contender(
                OURS_FAST,
                self.kafka.url,
                lambda state: {"state_directory": str(state), "publisher_client": LIBRDKAFKA},
            ),
            Contender(RABBITMQ, lambda _: rabbitmq.url, lambda _: {"confirm_publish": True}),
            Contender(REDIS, lambda _: redis.url, lambda _: {}),
            Contender(CONFLUENT, lambda _: f"confluentkafka://{bootstrap}", lambda _: {}),
        ):
            self.contenders[contender.name] = contender
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _made(self, name: str) -> Path:
        made = self._directory / name
        made.mkdir(parents=True)
        return made
