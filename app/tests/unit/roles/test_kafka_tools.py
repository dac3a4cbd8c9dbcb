"""Role kafka's modules: Kafka's tools read, topics planned, a sick cluster told from a well one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DESCRIBED = """\
Topic: tasks\tTopicId: a\tPartitionCount: 2\tReplicationFactor: 3\tConfigs: \
min.insync.replicas=2,cleanup.policy=compact,delete,retention.ms=1
\tTopic: tasks\tPartition: 0\tLeader: 1\tReplicas: 1,2,3\tIsr: 1,2,3\tElr: \tLastKnownElr: 
\tTopic: tasks\tPartition: 1\tLeader: none\tReplicas: 2,3,1\tIsr: 2\tElr: \tLastKnownElr: 
Topic: bare\tTopicId: b\tPartitionCount: 1\tReplicationFactor: 1\tConfigs: 
\tTopic: bare\tPartition: 0\tLeader: 2\tReplicas: 2\tIsr: 2\tElr: \tLastKnownElr: 
"""  # noqa: W291


@pytest.fixture(scope="session")
def tools(from_role: Callable[[str], ModuleType]) -> ModuleType:
    module = from_role("kafka/module_utils/kafka_tools.py")
    # Where Ansible puts a role's module_utils.
    sys.modules["ansible.module_utils.kafka_tools"] = module
    return module


@pytest.fixture(scope="session")
def topics(tools: ModuleType, from_role: Callable[[str], ModuleType]) -> ModuleType:
    return from_role("kafka/library/kafka_topics.py")


@pytest.fixture(scope="session")
def health(tools: ModuleType, from_role: Callable[[str], ModuleType]) -> ModuleType:
    return from_role("kafka/library/kafka_health.py")


def topic(name: str = "tasks", partitions: int = 2, **more: Any) -> dict[str, Any]:
    return {"name": name, "partitions": partitions, "replication_factor": None, "config": {}} | more


def test_a_description_is_read(tools: ModuleType) -> None:
    found = tools.parse_topics(DESCRIBED)

    assert found["tasks"].config == {
        "min.insync.replicas": "2",
        "cleanup.policy": "compact,delete",
        "retention.ms": "1",
    }
    assert found["tasks"].missing == {1: ["2", "3", "1"]}
    assert (found["bare"].partitions, found["bare"].config, found["bare"].missing) == (1, {}, {})


def test_a_tool_that_is_not_there_is_one_sentence(tools: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(tools.ToolError, match="does not exist; install Kafka first"):
        tools.Tools(str(tmp_path), ["localhost:1"]).describe_topics()


def test_what_a_tool_complains_of_is_told_without_its_trace(
    tools: ModuleType, tmp_path: Path
) -> None:
    script = tmp_path / "bin" / "kafka-topics.sh"
    script.parent.mkdir()
    script.write_text(
        "#!/bin/sh\necho '[x] WARN slow' >&2\n"
        "echo 'Error while executing: no such topic'\necho '\tat a.b(C.java)' >&2\nexit 1\n"
    )
    script.chmod(0o755)

    with pytest.raises(tools.ToolError, match=r"^kafka-topics\.sh: Error while .*: no such topic$"):
        tools.Tools(str(tmp_path), ["localhost:1"]).describe_topics()


def test_nothing_to_do_is_nothing_done(tools: ModuleType, topics: ModuleType) -> None:
    declared = [topic(config={"retention.ms": 1, "cleanup.policy": "compact,delete"})]

    assert topics.plan(declared, tools.parse_topics(DESCRIBED), 3) == ([], [], [])


def test_a_topic_grows_and_its_settings_follow(tools: ModuleType, topics: ModuleType) -> None:
    declared = [topic(partitions=9, config={"retention.ms": 7, "unclean": True})]

    commands, lines, warnings = topics.plan(declared, tools.parse_topics(DESCRIBED), 3)

    assert commands == [
        ["kafka-topics.sh", "--alter", "--topic", "tasks", "--partitions", "9"],
        [
            *("kafka-configs.sh", "--alter", "--entity-type", "topics", "--entity-name", "tasks"),
            *("--add-config", "retention.ms=[7],unclean=[true]"),
        ],
    ]
    assert lines[0] == "grow tasks: 2 -> 9 partitions"
    assert warnings == []


def test_a_new_topic_can_do_without_one_replica(topics: ModuleType) -> None:
    commands, _, _ = topics.plan([topic("new")], {}, 3)

    assert commands == [
        [
            *("kafka-topics.sh", "--create", "--topic", "new", "--partitions", "2"),
            *("--replication-factor", "3", "--config", "min.insync.replicas=2"),
        ]
    ]


def test_replicas_are_left_to_a_person(tools: ModuleType, topics: ModuleType) -> None:
    commands, _, warnings = topics.plan([topic("bare", 1)], tools.parse_topics(DESCRIBED), 3)

    assert "has 1 replicas and 3 are declared" in warnings[0]
    # With one replica, asking for two in sync would stop every writer.
    assert commands[0][-1] == "min.insync.replicas=[1]"


def test_a_smaller_topic_is_refused_with_the_reason(tools: ModuleType, topics: ModuleType) -> None:
    refusal = topics.shrunk([topic(partitions=1)], tools.parse_topics(DESCRIBED))

    assert refusal.startswith("Topic tasks has 2 partitions and the inventory asks for 1: Kafka")
    assert topics.shrunk([topic(partitions=2)], tools.parse_topics(DESCRIBED)) is None


@pytest.mark.parametrize(
    ("status", "described", "said"),
    [
        ("LeaderId:   1\nMaxFollowerLagTimeMs:   50\n", "", None),
        ("LeaderId:   -1\nMaxFollowerLagTimeMs:   0\n", "", "the quorum has no leader"),
        ("LeaderId:   1\nMaxFollowerLagTimeMs:   60000\n", "", "a controller does not follow"),
        ("LeaderId:   1\nMaxFollowerLagTimeMs:   0\n", DESCRIBED, "tasks-1 (node 2, 3, 1)"),
    ],
)
def test_health(
    tools: ModuleType,
    health: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    described: str,
    said: str | None,
) -> None:
    cluster = tools.Tools("/nowhere", [])
    answers = {"kafka-metadata-quorum.sh": status, "kafka-topics.sh": described}
    monkeypatch.setattr(tools.Tools, "run", lambda self, script, *arguments: answers[script])

    found, _ = health.faults(cluster)

    assert said is None or said in found[0]
    assert bool(found) == (said is not None)


def test_a_broker_that_is_away_is_named(tools: ModuleType, health: ModuleType) -> None:
    found, _ = health.faults(tools.Tools("/nowhere", ["127.0.0.1:1"]))

    assert found == ["127.0.0.1:1 did not answer"]
