"""What was done with letters: who, when, why. A compacted topic, one record for each letter.

The record's key names the letter, its value holds every act on it, so compaction forgets none. It
is the truth about what was replayed: an act is written in the transaction that replays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError
from kafka.structs import TopicPartition

from kombu_kafka.errors import ConfigurationError
from kombu_kafka.options import Options
from kombu_kafka.topics import admin_client
from scheduler.dlq.letters import LetterId
from scheduler.dlq.reader import Reader, rights

__all__ = ["IMPORTED", "REPLAYED", "SKIPPED", "Act", "History", "ensure_topic", "topic_of"]

REPLAYED, SKIPPED, IMPORTED = "replayed", "skipped", "imported"

#: Acts kept of one letter; a letter replayed by force a thousand times must not grow its record for ever.
MAX_ACTS = 100


@dataclass(frozen=True, kw_only=True)
class Act:
    """One act on one letter.

    Attributes:
        act: `replayed`, `skipped` or `imported`.
        by: Who did it.
        at: When, in seconds since the epoch.
        why: The reason given, or nothing.
        to: Where it was replayed to, or nothing.
        note: What was different: `forced`, `edited`, …
        task: The letter's task, to be read when the letter is gone.
    """

    act: str
    by: str
    at: float
    why: str = ""
    to: str = ""
    note: str = ""
    task: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value != ""}

    @classmethod
    def from_dict(cls, data: Any) -> Act:
        """Read an act; ValueError if it is none."""
        if not isinstance(data, dict) or not isinstance(data.get("at"), int | float):
            raise ValueError("no act")
        texts = {
            name: str(data.get(name, "")) for name in ("act", "by", "why", "to", "note", "task")
        }
        return cls(at=float(data["at"]), **texts)


def topic_of(options: Options) -> str:
    """Return the name of the history's topic."""
    return f"{options.dead_letter_topic}_history"


class History:
    """All acts on the letters of one dead letter topic; read once, then only what is new.

    Args:
        options: Brokers and the dead letter topic.
        topic_id: The id of that topic: of a topic made anew under the name, no letter was replayed.
    """

    def __init__(self, options: Options, topic_id: str) -> None:
        self.topic = topic_of(options)
        self.topic_id = topic_id
        self._acts: dict[LetterId, tuple[Act, ...]] = {}
        self._positions: dict[TopicPartition, int] = {}

    def refresh(self, reader: Reader) -> list[tuple[LetterId, Act]]:
        """Read what is new, up to the last committed record; return the acts that came."""
        bounds = reader.bounds(self.topic)
        if any(self._positions.get(one, 0) > end for one, (_, end) in bounds.items()):
            self._positions, self._acts = {}, {}  # made anew
        rest = {
            one: (max(start, self._positions.get(one, 0)), end)
            for one, (start, end) in bounds.items()
        }
        # Taken in whole or not at all: what was read before the brokers were lost comes again.
        found = [
            (self._letter(record.key), _acts(record.value))
            for record in reader.read(rest, self._positions)
        ]
        came = []
        for letter, acts in found:
            if letter is not None:
                came += [(letter, act) for act in acts if act not in self._acts.get(letter, ())]
                self._acts[letter] = acts
        return came

    def of(self, letter: LetterId) -> tuple[Act, ...]:
        """Return the acts on a letter, oldest first."""
        return self._acts.get(letter, ())

    def state(self, letter: LetterId) -> str:
        """Return `new`, `replayed` or `skipped`: what was done last with a letter."""
        for act in reversed(self.of(letter)):
            if act.act in (REPLAYED, SKIPPED):
                return act.act
        return "new"

    def all(self) -> list[tuple[LetterId, Act]]:
        """Return every act, oldest first."""
        acts = [(letter, act) for letter, acts in self._acts.items() for act in acts]
        return sorted(acts, key=lambda pair: pair[1].at)

    def record(self, letter: LetterId, acts: Iterable[Act]) -> tuple[bytes, bytes]:
        """Return key and value of the record that says these acts were the last."""
        kept = [act.as_dict() for act in (*self.of(letter), *acts)][-MAX_ACTS:]
        key = f"{self.topic_id}/{letter}".encode()
        return key, json.dumps({"letter": str(letter), "acts": kept}).encode()

    def _letter(self, key: bytes | None) -> LetterId | None:
        found = re.fullmatch(
            r"(.+)/([0-9]{1,9})-([0-9]{1,18})", (key or b"").decode(errors="replace")
        )
        if found is None or found[1] != self.topic_id:
            return None
        return LetterId(int(found[2]), int(found[3]))


def _acts(value: bytes | None) -> tuple[Act, ...]:
    try:
        data = json.loads(value or b"")
        return tuple(Act.from_dict(one) for one in data["acts"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()


def ensure_topic(options: Options) -> None:
    """Make the history's topic, or see that it forgets nothing.

    Raises:
        ConfigurationError: It exists and isn't compacted.
        BrokerUnavailableError: No broker answered.
    """
    name = topic_of(options)
    with admin_client(options, rights(options)) as admin:
        if name not in admin.list_topics():
            configs = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
            wanted = {"num_partitions": 1, "replication_factor": -1, "configs": configs}
            with suppress(TopicAlreadyExistsError):
                admin.create_topics({name: wanted})
            admin.wait_for_topics([name])
        policy = _policy(admin, name)
    if policy != "compact":
        raise ConfigurationError(
            f"The topic {name} has cleanup.policy={policy}, so it would forget what was replayed:"
            " set it to compact (kafka-configs.sh --alter --entity-type topics --entity-name"
            f" {name} --add-config cleanup.policy=compact)."
        )


def _policy(admin: KafkaAdminClient, topic: str) -> str:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    described = admin.describe_configs([resource], config_filter="all")
    return str(described["topic"][topic]["cleanup.policy"]["value"])
