"""Topics that are to be consumed and are not there: said once, and looked for at a pace."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import Any

from kafka.errors import InvalidTopicError

from ..clients import lookup
from ..clients.logs import told
from ..errors import ConfigurationError

__all__ = ("AbsentTopics",)

logger = logging.getLogger(__name__)

#: Seconds between two looks at a topic that is missing, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0
#: Seconds that the brokers may take to answer.
ANSWER_SECONDS = 5.0
#: Seconds after which it is said again that a topic is missing.
REMIND_SECONDS = 600.0
#: Seconds for which a topic that was there is taken to be so.
THERE_SECONDS = 1.0


class AbsentTopics:
    """Looks for topics; for one thread.

    They are looked for less and less often, up to every four seconds, and at once when this process has made one.
    """

    def __init__(self) -> None:
        #: Of each that is missing: when it was looked for, how long to wait then, when it was said.
        self._looks: dict[str, tuple[float, float, float]] = {}
        self._there: dict[str, tuple[float, int]] = {}

    @property
    def names(self) -> frozenset[str]:
        """Those that were missing when they were looked for last."""
        return frozenset(self._looks)

    def keep(self, topics: Collection[str]) -> None:
        """Have done with all but these."""
        for topic in self._looks.keys() - set(topics):
            self._forget(topic)

    def seen(self, topics: Collection[str]) -> None:
        """Have done with these: the client knows their partitions."""
        for topic in self._looks.keys() & set(topics):
            self._forget(topic)
            logger.info("The topic %s is there now.", topic)

    def find(self, client: Any, topics: Collection[str]) -> dict[str, int]:
        """Return the number of partitions of each of `topics` that is there.

        Arguments:
            client: a ``KafkaConsumer``.
            topics: those that are wanted.

        Raises:
            ConfigurationError: no topic can have such a name.
            KafkaError: the brokers did not answer, or this client may not ask.
        """
        now = time.monotonic()
        known = {
            topic: count
            for topic, (at, count) in self._there.items()
            if topic in topics and now - at < THERE_SECONDS
        }
        due = [topic for topic in topics if topic not in known and self._is_due(topic, now)]
        if not due:
            return known
        found = self._look(client, due)
        self._there = {topic: self._there[topic] for topic in known}
        self._there |= {topic: (now, count) for topic, count in found.items()}
        for topic in due:
            if topic not in found:
                self._missed(topic, now)
        self.seen(found)
        return known | found

    def _is_due(self, topic: str, now: float) -> bool:
        at, pause, _ = self._looks.get(topic, (0.0, 0.0, 0.0))
        return now >= at + pause or lookup.made_at(topic) > at

    def _look(self, client: Any, topics: Collection[str]) -> dict[str, int]:
        try:
            return lookup.partition_counts(client._manager, ANSWER_SECONDS, topics)
        except InvalidTopicError as exc:
            raise ConfigurationError(
                f"{exc.args[0]!r} can't be the name of a queue: it must be that of a Kafka topic "
                f"(letters, digits, '.', '_' and '-', at most 249 characters)."
            ) from exc

    def _missed(self, topic: str, now: float) -> None:
        _, pause, said = self._looks.get(topic, (now, FIRST_PAUSE / 2, now - REMIND_SECONDS))
        if now - said >= REMIND_SECONDS:
            said = now
            told.add(topic)
            logger.warning(
                "The topic %s does not exist, so nothing is consumed of it until it does: create "
                "it (kafka-topics.sh --create --topic %s), or queue a first task where the brokers "
                "make topics by themselves.", topic, topic,
            )  # fmt: skip
        self._looks[topic] = now, min(2 * pause, LONGEST_PAUSE), said

    def _forget(self, topic: str) -> None:
        del self._looks[topic]
        told.discard(topic)
