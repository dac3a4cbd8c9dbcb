"""Kafka's own command line tools, called and read. For the modules of role kafka."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field


class ToolError(Exception):
    """A tool failed; the message is what it said, in one line."""


@dataclass
class Topic:
    """A topic as ``kafka-topics.sh --describe`` shows it."""

    partitions: int
    replication_factor: int
    config: dict[str, str]
    #: Partition number -> its replicas that are not in sync; a partition without a leader has all.
    missing: dict[int, list[str]] = field(default_factory=dict)


def parse_topics(text: str) -> dict[str, Topic]:
    """Reads what ``kafka-topics.sh --describe`` prints.

    >>> topics = parse_topics(
    ...     "Topic: t\\tTopicId: x\\tPartitionCount: 1\\tReplicationFactor: 2\\tConfigs: a.b=1,c=d,e\\n"
    ...     "\\tTopic: t\\tPartition: 0\\tLeader: 1\\tReplicas: 1,2\\tIsr: 1\\tElr: \\n")
    >>> topics["t"].config, topics["t"].missing
    ({'a.b': '1', 'c': 'd,e'}, {0: ['2']})
    """
    topics: dict[str, Topic] = {}
    for line in text.splitlines():
        parts = (part.partition(":") for part in line.strip().split("\t"))
        fields = {name: value.strip() for name, _, value in parts}
        if "PartitionCount" in fields:
            topics[fields["Topic"]] = Topic(
                partitions=int(fields["PartitionCount"]),
                replication_factor=int(fields["ReplicationFactor"]),
                config=_parse_config(fields.get("Configs", "")),
            )
        elif "Partition" in fields:
            leader = fields.get("Leader", "none")
            in_sync = [] if leader in ("none", "-1") else fields["Isr"].split(",")
            missing = [
                replica for replica in fields["Replicas"].split(",") if replica not in in_sync
            ]
            if missing:
                topics[fields["Topic"]].missing[int(fields["Partition"])] = missing
    return topics


def _parse_config(text: str) -> dict[str, str]:
    # A value may hold commas (cleanup.policy=compact,delete): only "name=" begins the next.
    pairs = re.split(r",(?=[a-z][a-z.]*=)", text) if text else []
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def parse_broker_defaults(text: str) -> dict[str, str]:
    """Reads what ``kafka-configs.sh --describe --entity-default`` prints.

    >>> parse_broker_defaults("Default configs for brokers in the cluster are:\\n"
    ...     "  min.insync.replicas=2 sensitive=false synonyms={}\\n")
    {'min.insync.replicas': '2'}
    """
    return dict(re.findall(r"(?m)^  ([a-z.]+)=(.*?) sensitive=", text))


def parse_quorum(text: str) -> dict[str, int]:
    """Reads the numbers of ``kafka-metadata-quorum.sh describe --status``.

    >>> parse_quorum("LeaderId:               1\\nMaxFollowerLagTimeMs:   -1\\n")
    {'LeaderId': 1, 'MaxFollowerLagTimeMs': -1}
    """
    return {name: int(number) for name, number in re.findall(r"(?m)^(\w+):\s+(-?\d+)$", text)}


@dataclass(frozen=True)
class Tools:
    """The scripts of one installation, talking to one cluster."""

    home: str
    bootstrap_servers: list[str]
    #: A properties file, where brokers want more than a connection; empty: none.
    command_config: str = ""

    def run(self, script: str, *arguments: str) -> str:
        """Runs ``bin/<script>`` and returns what it printed.

        Raises:
            ToolError: it is missing, took over a minute, or failed.
        """
        path = os.path.join(self.home, "bin", script)
        command = [path, "--bootstrap-server", ",".join(self.bootstrap_servers)]
        if self.command_config:
            command += ["--command-config", self.command_config]
        command += arguments
        # JMX_PORT and the like belong to the broker.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KAFKA_", "JMX_")) and name != "LOG_DIR"
        }
        environment["KAFKA_HEAP_OPTS"] = "-Xmx128m"
        try:
            result = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=60, check=False
            )
        except FileNotFoundError as error:
            raise ToolError(f"{path} does not exist; install Kafka first (role kafka).") from error
        except subprocess.TimeoutExpired as error:
            raise ToolError(
                f"{script} gave no answer within {error.timeout:.0f} seconds."
            ) from error
        if result.returncode:
            raise ToolError(f"{script}: {_reason(result.stdout + result.stderr)}")
        return result.stdout

    def describe_topics(self) -> dict[str, Topic]:
        return parse_topics(self.run("kafka-topics.sh", "--describe"))

    def broker_defaults(self) -> dict[str, str]:
        """The cluster's own defaults, which count for more than server.properties."""
        arguments = ("--describe", "--entity-type", "brokers", "--entity-default")
        return parse_broker_defaults(self.run("kafka-configs.sh", *arguments))

    def quorum_status(self) -> dict[str, int]:
        return parse_quorum(self.run("kafka-metadata-quorum.sh", "describe", "--status"))


def _reason(output: str) -> str:
    """The line of a tool's output that says what is wrong, without the stack trace around it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("at ") and "WARN" not in line]
    for line in told:
        if "Exception" in line or line.startswith("Error"):
            return line
    return (told or lines or ["it failed without a word."])[0]
