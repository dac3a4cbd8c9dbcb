"""A real Kafka of its own: KRaft brokers on loopback, started in seconds, gone with whoever started them.

Tests and `scheduler dev` run on it. It takes the archive that the Ansible role installs (`KAFKA_ARCHIVE`), or an
unpacked one (`KAFKA_HOME`), and needs a Java 17 runtime.
"""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import uuid
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from scheduler import processes

__all__ = ["LocalBrokerError", "LocalKafka", "Node", "find_home"]

#: Where `files/kafka/build_archive.py` leaves the archive, seen from the repository's root.
BUILT_ARCHIVE = Path(".cache/kafka/kafka_2.13-4.3.0.tgz")

#: A broker that must start fast and stay small, not one that must run long.
JVM = (
    "-Xms64m",
    "-Xmx384m",
    "-Xss512k",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
)

LOG4J = """\
Configuration:
  status: error
  Appenders:
    Console:
      name: out
      PatternLayout:
        pattern: "[%d] %p %m (%c)%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        - ref: out
    Logger:
      - name: kafka.server.KafkaRaftServer
        level: INFO
"""


class LocalBrokerError(Exception):
    """The local Kafka can't run; the message says why and what to do."""


def find_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return an unpacked Kafka: `KAFKA_HOME`, or `KAFKA_ARCHIVE` (by default the one built here), unpacked once."""
    if shutil.which("java") is None:
        raise LocalBrokerError(
            "Java is missing: install a Java 17 runtime (Debian: openjdk-17-jre-headless)."
        )
    if home := environ.get("KAFKA_HOME"):
        if not (Path(home) / "libs").is_dir():
            raise LocalBrokerError(
                f"KAFKA_HOME={home} holds no libs/: it must name an unpacked Kafka archive."
            )
        return Path(home)
    named = environ.get("KAFKA_ARCHIVE")
    archive = Path(named) if named else _built_archive()
    if archive is None or not archive.is_file():
        raise LocalBrokerError(
            f"There is no Kafka archive at {archive or BUILT_ARCHIVE}: build it with"
            f" `python3 files/kafka/build_archive.py --output {BUILT_ARCHIVE}`,"
            " or name one in KAFKA_ARCHIVE, or an unpacked one in KAFKA_HOME."
        )
    return _unpack(archive)


def _built_archive() -> Path | None:
    """Look for the built archive from here and from this file upwards (an editable install lies in the repository)."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for directory in (start, *start.parents):
            if (directory / BUILT_ARCHIVE).is_file():
                return directory / BUILT_ARCHIVE
    return None


def _unpack(archive: Path) -> Path:
    """Unpack beside the archive, once for each state of it, whoever else is doing the same."""
    stat = archive.stat()
    target = archive.parent / f".unpacked-{stat.st_size}-{stat.st_mtime_ns}"
    with (archive.parent / ".unpacked.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            for old in archive.parent.glob(".unpacked-*"):
                shutil.rmtree(old, ignore_errors=True)
            fresh = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=archive.parent))
            try:
                with tarfile.open(archive) as tar:
                    # Debian 12's Python 3.11.2 has no filters yet.
                    tar.extraction_filter = getattr(
                        tarfile, "data_filter", lambda member, path: member
                    )
                    tar.extractall(fresh)  # noqa: S202 - our own archive
                fresh.rename(target)
            except (OSError, tarfile.TarError) as exc:
                shutil.rmtree(fresh, ignore_errors=True)
                raise LocalBrokerError(
                    f"{archive} can't be unpacked ({exc}): build it again."
                ) from exc
    homes = [libs.parent for libs in target.glob("*/libs")]
    if len(homes) != 1:
        raise LocalBrokerError(
            f"{archive} is not laid out as Kafka's archive: it holds no <version>/libs directory."
        )
    return homes[0]


class Node:
    """One broker (and controller) of a local cluster; it can be stopped, killed and started again."""

    def __init__(self, cluster: LocalKafka, node_id: int) -> None:
        self.id = node_id
        self.port = processes.free_port()
        self.controller_port = processes.free_port()
        self.ports = {name: processes.free_port() for name in cluster.listeners}
        #: `host:port` that a listener tells clients, where that is not its own (a proxy's).
        self.advertised: dict[str, str] = {}
        self.log = cluster.directory / f"kafka{node_id}.log"
        #: More options for its Java (an agent); taken at the next start.
        self.jvm: tuple[str, ...] = ()
        self._cluster = cluster
        self._data = cluster.directory / f"data{node_id}"
        self._config = cluster.directory / f"kafka{node_id}.properties"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process of the running node."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; `LocalKafka.wait` waits until it serves."""
        if self.running:
            return
        if not self._config.exists():
            self._configure()
            self._format()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._config), jvm=self.jvm),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._cluster.directory,
                start_new_session=True,  # ^C in the terminal is for the one who supervises, not for the broker
                preexec_fn=processes.dies_with_parent(),
            )

    def stop(self, patience: float = 20) -> None:
        """Shut down in order: leadership moves away first, where there is somewhere to move."""
        if self._process is not None:
            processes.stop(self._process, patience)

    def kill(self) -> None:
        """Die at once, as by loss of power."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def sees(self) -> set[int]:
        """Ask this very node which brokers the cluster has."""
        admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{self.port}")
        try:
            brokers: Sequence[Mapping[str, int]] = admin.describe_cluster()["brokers"]
            return {broker["broker_id"] for broker in brokers}
        finally:
            admin.close()

    def log_tail(self, lines: int = 20) -> str:
        return processes.tail(self.log, lines)

    def _configure(self) -> None:
        replicas = min(3, len(self._cluster.nodes))
        voters = ",".join(
            f"{node.id}@127.0.0.1:{node.controller_port}" for node in self._cluster.nodes
        )
        named = "".join(f",{name}://localhost:{port}" for name, port in self.ports.items())
        told = "".join(
            f",{name}://{self.advertised.get(name, f'localhost:{port}')}"
            for name, port in self.ports.items()
        )
        protocols = "".join(f",{name}:{kind}" for name, kind in self._cluster.listeners.items())
        properties = {
            "process.roles": "broker,controller",
            "node.id": self.id,
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}{named}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}{told}",
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}",
            "log.dirs": self._data,
            "auto.create.topics.enable": "true",
            "default.replication.factor": replicas,
            "min.insync.replicas": max(1, replicas - 1),
            "num.partitions": 1,
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": max(1, replicas - 1),
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": max(1, replicas - 1),
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 500,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "background.threads": 2,
            "log.cleaner.dedupe.buffer.size": 2 * 1024 * 1024,
            "broker.heartbeat.interval.ms": 500,
            "broker.session.timeout.ms": 3000,
            "controller.quorum.election.timeout.ms": 500,
            "controller.quorum.election.backoff.max.ms": 500,
            "controller.quorum.fetch.timeout.ms": 1000,
            **self._cluster.properties,
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))

    def _format(self) -> None:
        done = subprocess.run(
            self._java(
                "kafka.tools.StorageTool",
                "format",
                "--cluster-id",
                self._cluster.cluster_id,
                "--config",
                str(self._config),
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LocalBrokerError(
                f"Kafka's storage tool failed:\n{(done.stdout + done.stderr).strip()[-2000:]}"
            )

    def _java(self, *command: str, jvm: Sequence[str] = ()) -> list[str]:
        log4j = self._cluster.directory / "log4j2.yaml"
        if not log4j.exists():
            log4j.write_text(LOG4J)
        return [
            "java",
            *JVM,
            *jvm,
            f"-Dlog4j2.configurationFile={log4j}",
            "-cp",
            f"{self._cluster.home}/libs/*",
            *command,
        ]


class LocalKafka:
    """A cluster of `nodes` brokers in a directory of its own.

    Use it as a context manager, or call `start` and `stop`. The brokers end with this process even if it is
    killed; the directory goes with `stop` unless it was given.

    Args:
        nodes: How many brokers, each a controller too.
        directory: Where data and logs lie; a temporary directory by default.
        home: An unpacked Kafka; found by `find_home` by default.
        properties: Broker properties that replace ours.
        listeners: Listeners besides the plain one, and the protocol of each (`{"TLS": "SSL"}`).
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        directory: Path | None = None,
        home: Path | None = None,
        properties: Mapping[str, object] | None = None,
        listeners: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home or find_home()
        self.properties = dict(properties or {})
        self.listeners = dict(listeners or {})
        # An id that begins with "-" would be taken for an option; an octet of ours in front rules it out.
        self.cluster_id = (
            base64.urlsafe_b64encode(b"L" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        )
        self._owns_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="local-kafka-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        if directory is None:  # also where it is never started, or never stopped
            weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)
        self.nodes: list[Node] = []
        # Every node's configuration names the ports of all: make all of them before any starts.
        self.nodes.extend(Node(self, node_id) for node_id in range(1, nodes + 1))

    @property
    def bootstrap(self) -> list[str]:
        """`host:port` of each node."""
        return [f"127.0.0.1:{node.port}" for node in self.nodes]

    def addresses(self, listener: str) -> list[str]:
        """`localhost:port` of each node's listener of this name."""
        return [f"localhost:{node.ports[listener]}" for node in self.nodes]

    def url(self, topic: str = "tasks") -> str:
        """The broker URL for Celery."""
        return f"kafka://{','.join(self.bootstrap)}//{topic}"

    def start(self, timeout: float = 120) -> Self:
        """Start all nodes and wait until every one of them serves."""
        try:
            for node in self.nodes:
                node.start()
            self.wait(timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def wait(self, timeout: float = 120) -> None:
        """Wait until every running node has joined the cluster and answers."""
        expected = {node.id for node in self.nodes if node.running}
        deadline = time.monotonic() + timeout
        while True:
            for node in self.nodes:
                if node.id in expected and not node.running:
                    raise LocalBrokerError(
                        f"Kafka node {node.id} ended while starting:\n{node.log_tail()}"
                    )
            try:
                if all(expected <= node.sees() for node in self.nodes if node.running):
                    return
            except KafkaError:
                pass
            if time.monotonic() > deadline:
                logs = "\n".join(f"node {node.id}:\n{node.log_tail(8)}" for node in self.nodes)
                raise LocalBrokerError(f"Kafka did not answer within {timeout:g} s:\n{logs}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End every node; remove the directory if it is ours."""
        for node in self.nodes:
            # Nobody needs the data again, so the quick way; a given directory may be read later.
            node.kill() if self._owns_directory else node.stop()
        if self._owns_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        config: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> None:
        """Create a topic, replicated on up to three nodes, and wait until it can be used."""
        admin = self.admin()
        try:
            options = {
                "num_partitions": partitions,
                "replication_factor": min(3, len(self.nodes)),
                "configs": dict(config or {}),
            }
            admin.create_topics({name: options})
            admin.wait_for_topics([name], timeout_ms=int(timeout * 1000))
        finally:
            admin.close()

    def admin(self) -> KafkaAdminClient:
        """An admin client on this cluster; the caller closes it."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap, client_id="local-kafka")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
