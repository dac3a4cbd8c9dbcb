"""Ansible module: is the Kafka cluster healthy?"""

from __future__ import annotations

import socket
import time

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible.module_utils.kafka_tools import ToolError, Tools  # type: ignore[import-untyped]

DOCUMENTATION = """
module: kafka_health
short_description: Waits until a Kafka cluster is healthy
description:
  - Healthy is a cluster whose brokers all answer, whose quorum has a leader that every controller
    follows closely, and whose partitions have all their replicas in sync.
author: the project
options:
  bootstrap_servers: {description: Every broker as host:port., type: list, elements: str, required: true}
  home: {description: Where Kafka is installed., type: path, required: true}
  command_config: {description: "The properties file of Kafka's tools; empty: none.", type: str, default: ""}
  timeout: {description: How many seconds to wait., type: int, default: 180}
"""

EXAMPLES = """
- kafka_health:
    bootstrap_servers: [kafka1:9092, kafka2:9092]
    home: /opt/kafka/current
"""

RETURN = """
leader:
  description: The node id of the quorum's leader.
  type: int
  returned: success
"""

#: A controller further behind than this doesn't follow: it fetches at least every two seconds.
FOLLOWER_LAG_MS = 10_000


def silent_brokers(servers: list[str]) -> list[str]:
    """The servers that refuse a connection."""
    silent = []
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
        except OSError:
            silent.append(server)
    return silent


def faults(tools: Tools) -> tuple[list[str], int]:
    """What is wrong with the cluster now, and who leads it (-1: nobody)."""
    silent = silent_brokers(tools.bootstrap_servers)
    if silent:
        # Kafka's tools would only wait for them.
        return [f"{', '.join(silent)} did not answer"], -1
    try:
        quorum = tools.quorum_status()
        topics = tools.describe_topics()
    except ToolError as error:
        return [str(error)], -1
    found = []
    leader = quorum.get("LeaderId", -1)
    if leader < 0:
        found.append("the quorum has no leader")
    lag = quorum.get("MaxFollowerLagTimeMs", 0)
    if not 0 <= lag <= FOLLOWER_LAG_MS:
        found.append(f"a controller does not follow the leader (MaxFollowerLagTimeMs is {lag})")
    lacking = [
        f"{name}-{partition} (node {', '.join(replicas)})"
        for name, topic in sorted(topics.items())
        for partition, replicas in sorted(topic.missing.items())
    ]
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        found.append(f"these partitions lack a replica in sync: {', '.join(lacking[:5])}{more}")
    return found, leader


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "bootstrap_servers": {"type": "list", "elements": "str", "required": True},
            "home": {"type": "path", "required": True},
            "command_config": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    tools = Tools(
        module.params["home"], module.params["bootstrap_servers"], module.params["command_config"]
    )
    deadline = time.monotonic() + module.params["timeout"]
    while True:
        found, leader = faults(tools)
        if not found:
            module.exit_json(changed=False, leader=leader)
        if time.monotonic() > deadline:
            module.fail_json(
                msg=f"The Kafka cluster was not healthy within {module.params['timeout']} seconds: "
                f"{'; '.join(found)}."
            )
        time.sleep(1)


if __name__ == "__main__":
    main()
