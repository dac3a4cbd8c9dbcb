"""Ansible module: makes Kafka's topics and grows them."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible.module_utils.kafka_tools import ToolError, Tools, Topic  # type: ignore[import-untyped]

DOCUMENTATION = """
module: kafka_topics
short_description: Makes Kafka's topics, grows them and sets their configuration
description:
  - One look at the cluster for all topics, since each of Kafka's tools takes a second or two to start.
  - A topic that sets no min.insync.replicas gets one less than it has replicas, so that one may be away.
    The same becomes the cluster's default, which Kafka 4 keeps as it was when the cluster was small.
  - Nothing is changed if any topic is declared smaller than it is.
author: the project
options:
  bootstrap_servers: {description: Brokers as host:port., type: list, elements: str, required: true}
  home: {description: Where Kafka is installed., type: path, required: true}
  command_config: {description: "The properties file of Kafka's tools; empty: none.", type: str, default: ""}
  default_replication_factor: {description: For topics that name none., type: int, required: true}
  topics:
    description: The topics.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: The topic's name., type: str, required: true}
      partitions: {description: How many partitions it has., type: int, required: true}
      replication_factor: {description: Copies of each partition., type: int}
      config: {description: "Its settings, as retention.ms.", type: dict, default: {}}
"""

EXAMPLES = """
- kafka_topics:
    bootstrap_servers: [kafka1:9092]
    home: /opt/kafka/current
    default_replication_factor: 3
    topics:
      - name: tasks
        partitions: 6
        config: {retention.ms: 604800000}
"""

RETURN = """
commands:
  description: What was run, or would be in check mode; each a script and its arguments.
  type: list
  elements: list
  returned: success
"""


def config_value(value: Any) -> str:
    """A setting as Kafka writes it: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def shrunk(declared: list[dict[str, Any]], existing: dict[str, Topic]) -> str | None:
    """The sentence that refuses topics declared smaller than they are; None if there are none."""
    for topic in declared:
        name, wanted = topic["name"], topic["partitions"]
        if name in existing and wanted < existing[name].partitions:
            return (
                f"Topic {name} has {existing[name].partitions} partitions and the inventory asks for "
                f"{wanted}: Kafka can't take partitions away, because the messages in them would be lost "
                "and every key would move to another partition, which breaks its order. Set the number "
                f"back to {existing[name].partitions} or more, or use a new topic."
            )
    return None


def plan(
    declared: list[dict[str, Any]], existing: dict[str, Topic], default_replication_factor: int
) -> tuple[list[list[str]], list[str], list[str]]:
    """What to run, that as lines for people, and warnings about what can't be done here."""
    commands: list[list[str]] = []
    lines: list[str] = []
    warnings: list[str] = []
    for topic in declared:
        name, partitions = topic["name"], topic["partitions"]
        replication = topic["replication_factor"] or default_replication_factor
        config = {key: config_value(value) for key, value in topic["config"].items()}
        replicas = existing[name].replication_factor if name in existing else replication
        config.setdefault("min.insync.replicas", str(max(1, replicas - 1)))
        if name not in existing:
            command = ["kafka-topics.sh", "--create", "--topic", name]
            command += ["--partitions", str(partitions), "--replication-factor", str(replication)]
            for key, value in config.items():
                command += ["--config", f"{key}={value}"]
            commands.append(command)
            lines.append(f"make {name}: {partitions} partitions, {replication} replicas, {config}")
            continue
        current = existing[name]
        if partitions > current.partitions:
            commands.append(
                ["kafka-topics.sh", "--alter", "--topic", name, "--partitions", str(partitions)]
            )
            lines.append(f"grow {name}: {current.partitions} -> {partitions} partitions")
        changed = {key: value for key, value in config.items() if current.config.get(key) != value}
        if changed:
            command = [
                "kafka-configs.sh",
                "--alter",
                "--entity-type",
                "topics",
                "--entity-name",
                name,
            ]
            # Brackets let a value hold commas.
            pairs = ",".join(f"{key}=[{value}]" for key, value in changed.items())
            commands.append([*command, "--add-config", pairs])
            lines.append(f"configure {name}: {changed}")
        if replication != current.replication_factor:
            warnings.append(
                f"Topic {name} has {current.replication_factor} replicas and {replication} are "
                "declared; move it with kafka-reassign-partitions.sh, which this role leaves to a person."
            )
    return commands, lines, warnings


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "bootstrap_servers": {"type": "list", "elements": "str", "required": True},
            "home": {"type": "path", "required": True},
            "command_config": {"type": "str", "default": ""},
            "default_replication_factor": {"type": "int", "required": True},
            "topics": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "partitions": {"type": "int", "required": True},
                    "replication_factor": {"type": "int"},
                    "config": {"type": "dict", "default": {}},
                },
            },
        },
        supports_check_mode=True,
    )
    tools = Tools(
        module.params["home"], module.params["bootstrap_servers"], module.params["command_config"]
    )
    declared = module.params["topics"]
    try:
        existing = tools.describe_topics()
        refusal = shrunk(declared, existing)
        if refusal:
            module.fail_json(msg=refusal)
        commands, lines, warnings = plan(
            declared, existing, module.params["default_replication_factor"]
        )
        in_sync = str(max(1, module.params["default_replication_factor"] - 1))
        if tools.broker_defaults().get("min.insync.replicas") != in_sync:
            command = [
                "kafka-configs.sh",
                "--alter",
                "--entity-type",
                "brokers",
                "--entity-default",
            ]
            commands.append([*command, "--add-config", f"min.insync.replicas={in_sync}"])
            lines.append(f"configure the cluster: min.insync.replicas={in_sync} by default")
        for warning in warnings:
            module.warn(warning)
        if not module.check_mode:
            for command in commands:
                tools.run(*command)
    except ToolError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(commands),
        commands=commands,
        diff={"before": "", "after": "".join(f"{line}\n" for line in lines)},
    )


if __name__ == "__main__":
    main()
