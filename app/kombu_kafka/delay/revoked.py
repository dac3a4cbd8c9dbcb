"""Ids of revoked messages, kept in a compacted topic for as long as one of them may be delayed."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterable

from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from ..clients.consumers import new_consumer, read
from ..clients.fetching import poll
from ..errors import ConfigurationError, publish_error
from ..options import Options
from ..publishing import producer
from . import topics as delay_topics

__all__ = ("MAX_IDS", "RevokedIds", "revoke")

logger = logging.getLogger(__name__)

#: Ids kept in memory; when there are more, the oldest are forgotten.
MAX_IDS = 200_000
#: Seconds between two looks at what was revoked meanwhile.
LOOK_SECONDS = 1.0
#: Seconds without a record of the topic after which reading it to its end has failed.
LOAD_SECONDS = 30.0


def revoke(options: Options, ids: Iterable[str]) -> None:
    """Have delayed messages with these ids (header ``id``) discarded, also after a restart.

    Raises:
        ConfigurationError: ``delay_topic`` is None, or the topics can't be made.
        KombuKafkaError: the ids are not stored, or that is not known.
    """
    if options.delay_topic is None:
        raise ConfigurationError(
            "Nothing is delayed in Kafka, so nothing there can be revoked: the transport option "
            "'delay_topic' is None."
        )
    delay_topics.ensure(options)
    topic = delay_topics.revoked_topic(options)
    client = producer.shared(options)
    now = str(int(time.time() * 1000)).encode()
    futures = [client.send(topic, now, key=name.encode(), partition=0) for name in ids]
    for future in futures:
        try:
            client.confirm(future)
        except KafkaError as exc:
            raise publish_error(exc, topic, 0) from exc


class RevokedIds:
    """What was revoked, read from the topic; for one thread.

    Arguments:
        options: brokers and topic.
        max_ids: how many ids are kept.
    """

    def __init__(self, options: Options, max_ids: int = MAX_IDS) -> None:
        self.topic = delay_topics.revoked_topic(options)
        self._partition = TopicPartition(self.topic, 0)
        self._max_ids = max_ids
        #: Id → when it was revoked, milliseconds since the epoch; the oldest first.
        self._ids: OrderedDict[bytes, int] = OrderedDict()
        self._keep_ms = (options.delay_limit + 86_400) * 1000
        self._looked = 0.0
        self._client = new_consumer(options, max_poll_records=5000)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, name: bytes | None) -> bool:
        return name in self._ids

    def load(self) -> None:
        """Read the whole topic.

        Raises:
            KafkaError: it could not be read.
        """
        self._ids.clear()
        start = self._client.beginning_offsets([self._partition])[self._partition]
        end = self._client.end_offsets([self._partition])[self._partition]
        for records in read(self._client, {self._partition: (start, end)}, LOAD_SECONDS):
            self._take(records)

    def look(self) -> None:
        """Read what came since, at most once a second; never waits."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            for records in poll(self._client, timeout_ms=0).values():
                self._take(records)

    def close(self) -> None:
        """Close the client."""
        self._client.close(autocommit=False, timeout_ms=1000)

    def _take(self, records: Iterable[ConsumerRecord]) -> None:
        for record in records:
            self._ids.pop(record.key, None)
            if record.value is not None and record.key is not None:
                self._ids[record.key] = record.timestamp
        oldest_kept = time.time() * 1000 - self._keep_ms
        while self._ids and next(iter(self._ids.values())) < oldest_kept:
            self._ids.popitem(last=False)
        if len(self._ids) > self._max_ids:
            logger.warning(
                "More than %d tasks are revoked that nobody has discarded yet: the oldest are "
                "forgotten, and run if they are delayed.", self._max_ids,
            )  # fmt: skip
        while len(self._ids) > self._max_ids:
            self._ids.popitem(last=False)
