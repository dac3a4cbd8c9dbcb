"""The brokers of the comparison, each a process of its own that can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from scheduler import processes
from scheduler.local_broker import LocalKafka

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


class _Server:
    """A server process in a directory of its own."""

    patience = 45.0

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = processes.free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environ(self) -> dict[str, str]:
        return {}

    def start(self) -> None:
        with (self.directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                env={**os.environ, **self.environ()},
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=processes.dies_with_parent(),
            )
        deadline = time.monotonic() + 120
        while not processes.listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(processes.tail(self.directory / "broker.log"))
            time.sleep(0.1)

    def crash(self) -> None:
        self.stop()
        time.sleep(2)
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Redis(_Server):
    """Redis with an append-only file, written once a second (its advice for durability)."""

    name = "Redis"
    #: kombu looks for tasks whose visibility timeout is over every hundred seconds.
    patience = 150.0

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        #: An hour by default: for so long would tasks of a killed worker wait.
        self.options: dict[str, Any] = {"visibility_timeout": 15}

    def command(self) -> list[str]:
        return [
            "redis-server", "--port", str(self.port), "--dir", str(self.directory),
            "--appendonly", "yes", "--bind", "127.0.0.1",
        ]  # fmt: skip


class RabbitMQ(_Server):
    """RabbitMQ, one node, with publisher confirms."""

    name = "RabbitMQ"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._distribution, self._epmd = processes.free_port(), processes.free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self.options: dict[str, Any] = {"confirm_publish": True}

    def command(self) -> list[str]:
        # Not /usr/sbin's script: that one changes to the user rabbitmq.
        scripts = Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server")
        return [str(next(scripts, shutil.which("rabbitmq-server") or "rabbitmq-server"))]

    def environ(self) -> dict[str, str]:
        home = str(self.directory)
        (self.directory / "enabled_plugins").write_text("[].\n")
        return {
            "HOME": home,
            "RABBITMQ_NODENAME": f"compare{self.port}@{socket.gethostname().split('.')[0]}",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_BASE": home,
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_LOGS": f"{home}/log/node.log",
            "RABBITMQ_PID_FILE": f"{home}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq",
            "RABBITMQ_SCHEMA_DIR": f"{home}/schema",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{home}/config",
            "ERL_EPMD_PORT": str(self._epmd),
        }

    def stop(self) -> None:
        super().stop()
        # Its port mapper is a daemon, and would outlive it.
        mapper = ["epmd", "-port", str(self._epmd), "-kill"]
        subprocess.run(mapper, check=False, capture_output=True)
