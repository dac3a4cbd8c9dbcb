"""The delay topic and the topic of revoked ids: made where missing, checked where not."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import AuthorizationError, KafkaError, TopicAlreadyExistsError
from kafka.structs import TopicPartition

from ..errors import ConfigurationError
from ..options import Options
from ..topics import admin_client
from ..wording import counted

__all__ = ("LEVELS", "delete", "ensure", "group_of", "revoked_topic")

logger = logging.getLogger(__name__)

#: Partitions of the delay topic that are used.
LEVELS = 26
#: Milliseconds a topic of limited retention must keep its records: twice what the top level waits.
_LEAST_RETENTION_MS = 2 * (100 << (LEVELS - 1))

#: Settings of the delay topic. The dispatcher deletes what it has forwarded, and short segments
#: let Kafka free the disk.
DELAY_CONFIG = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
    "segment.ms": "3600000",
    "segment.bytes": "67108864",
}

_ready: set[Options] = set()
_lock = threading.Lock()


def group_of(options: Options) -> str:
    """Return the consumer group of the dispatchers, which is also their transactional id.

    It is the topic's and no worker group's: were it theirs, two applications that share the topic
    would forward each other's messages a second time.
    """
    return f"{options.delay_topic}.dispatcher"


def revoked_topic(options: Options) -> str:
    """Return the name of the topic of revoked ids."""
    return f"{options.delay_topic}_revoked"


def ensure(options: Options) -> None:
    """Make the topics that are missing, once a process; refuse a delay topic that can't work.

    Raises:
        ConfigurationError: the topic has too few partitions or wrong settings, or can't be made.
        BrokerUnavailableError: no broker answered within ``connect_timeout``.
    """
    if options in _ready or options.delay_topic is None:
        return
    with _lock:
        if options in _ready:
            return
        with admin_client(options) as admin:
            _ensure(admin, options, options.delay_topic)
        _ready.add(options)


def delete(options: Options, offsets: Mapping[TopicPartition, int]) -> None:
    """Delete what lies before these offsets; where that can't be, it is said in the log."""
    if not offsets:
        return
    try:
        admin = KafkaAdminClient(**options.client_settings())
        try:
            admin.delete_records(dict(offsets), timeout_ms=5000)
        finally:
            admin.close()
    except KafkaError as exc:
        logger.warning(
            "What was forwarded stays on the disks of %s (%s): this client needs the Delete "
            "operation on it.", options.delay_topic, exc,
        )  # fmt: skip


def _ensure(admin: KafkaAdminClient, options: Options, name: str) -> None:
    _make(admin, name, LEVELS, DELAY_CONFIG)
    # An id must be known for as long as its task may wait.
    retention = str(int((options.delay_limit + 86_400) * 1000))
    _make(
        admin,
        revoked_topic(options),
        1,
        {"cleanup.policy": "compact,delete", "retention.ms": retention},
    )
    _check(admin, name)


def _make(admin: KafkaAdminClient, name: str, partitions: int, config: Mapping[str, str]) -> None:
    if name in admin.list_topics():
        return
    wanted = {"num_partitions": partitions, "replication_factor": -1, "configs": dict(config)}
    try:
        admin.create_topics({name: wanted}, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        pass  # another process was faster
    except AuthorizationError as exc:
        raise ConfigurationError(
            f"The topic {name} is missing and this client may not make it ({type(exc).__name__}): "
            f"make it with {partitions} partitions and "
            f"{' '.join(f'{key}={value}' for key, value in config.items())}."
        ) from exc


def _check(admin: KafkaAdminClient, name: str) -> None:
    """Refuse a delay topic that would lose messages, or never forward them."""
    (described,) = admin.describe_topics([name])
    count = len(described["partitions"])
    if count < LEVELS:
        raise ConfigurationError(
            f"The topic {name} has {counted(count, 'partition')} and needs {LEVELS}, one for each level of "
            f"waiting: add them with kafka-topics.sh --alter --topic {name} --partitions {LEVELS}."
        )
    try:
        answer = admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all"
        )
    except AuthorizationError:
        return  # this client may not look; one that may will complain
    found = {
        key: str(entry["value"])
        for topics in answer.values()
        for key, entry in topics.get(name, {}).items()
    }
    wrong = [key for key, value in found.items() if not _fits(key, value)]
    if wrong:
        raise ConfigurationError(
            f"The topic {name} has {', '.join(f'{key}={found[key]}' for key in sorted(wrong))}, "
            f"so that delayed messages would be lost or wait for ever: set "
            f"{','.join(f'{key}={DELAY_CONFIG[key]}' for key in sorted(wrong))} with "
            f"kafka-configs.sh --alter --topic {name} --add-config."
        )


def _fits(key: str, value: str) -> bool:
    if key == "retention.ms":
        return value == "-1" or int(value) >= _LEAST_RETENTION_MS
    if key in ("cleanup.policy", "message.timestamp.type", "retention.bytes"):
        return value == DELAY_CONFIG[key]
    return True


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
