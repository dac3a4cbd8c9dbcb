"""The dead letter topic: a record that can't be processed goes there whole.

Value, key and headers stay as they were, byte for byte; what is known of the failure is added as
headers prefixed ``dlq-``, all of them text. A record counts as done only once its letter is
confirmed by every in-sync replica; until then its partition waits.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, MessageSizeTooLargeError

from . import producer
from .errors import KombuKafkaError, PublishError
from .options import Options
from .record import Headers

__all__ = ("HEADER_PREFIX", "DeadLetterWriter", "Letter", "letter_headers")

logger = logging.getLogger(__name__)

#: What this transport adds begins with this.
HEADER_PREFIX = "dlq-"
#: Longest value of an added header, in bytes.
MAX_HEADER_BYTES = 16_384
#: Seconds before a letter that was not confirmed is written again.
RETRY_SECONDS = 1.0
#: Letters written before the confirmations are waited for.
BATCH = 100


@dataclass(frozen=True)
class Letter:
    """A record that failed, and why.

    Attributes:
        record: as it was fetched.
        reason: why, in one word that programs can match (``undecodable``, ``rejected``, …).
        details: more, by name without the prefix (``exception``, ``message``, …).
        written: called once the letter is confirmed.
    """

    record: ConsumerRecord
    reason: str
    details: Mapping[str, str] = field(default_factory=dict)
    written: Callable[[], object] = lambda: None


def letter_headers(letter: Letter, failed_at: float) -> Headers:
    """Return a letter's headers: the record's own, then ours.

    Arguments:
        letter: the letter.
        failed_at: when it failed, seconds since the epoch.
    """
    record = letter.record
    about = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp),
        "reason": letter.reason,
        "failed-at": f"{failed_at:.3f}",
        **letter.details,
    }
    if record.value is None:
        about["null-value"] = "true"  # the client can't send a record with neither key nor value
    original = [(name, b"" if value is None else value) for name, value in record.headers or ()]
    return original + [
        (HEADER_PREFIX + name, text.encode(errors="replace")[:MAX_HEADER_BYTES])
        for name, text in about.items()
    ]


class DeadLetterWriter:
    """Writes letters in a thread of its own, each until it is confirmed.

    Arguments:
        options: brokers and the topic.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._letters: queue.SimpleQueue[Letter] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def write(self, letter: Letter) -> None:
        """Take a letter; ``letter.written`` is called, in another thread, once it is confirmed."""
        self._letters.put(letter)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="kombu-kafka-dead-letters", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            batch = [self._letters.get()]
            while len(batch) < BATCH and not self._letters.empty():
                batch.append(self._letters.get())
            while batch:
                batch = self._attempt(batch)
                if batch:
                    time.sleep(RETRY_SECONDS)

    def _attempt(self, batch: list[Letter]) -> list[Letter]:
        """Write a batch; return what has to be written again."""
        try:
            client = producer.shared(self._options)
        except KombuKafkaError as exc:
            self._complain(batch, exc)
            return batch
        futures, failed = [], []
        for letter in batch:
            try:
                futures.append((letter, self._send(client, letter, whole=True)))
            except KombuKafkaError as exc:
                if isinstance(exc, PublishError) and self._send_without_value(client, letter):
                    continue
                self._complain([letter], exc)
                failed.append(letter)
        for letter, future in futures:
            try:
                future.get(timeout=producer.DELIVERY_TIMEOUT_MS / 1000 + 5)
            except MessageSizeTooLargeError as exc:
                if not self._send_without_value(client, letter):
                    self._complain([letter], exc)
                    failed.append(letter)
            except KafkaError as exc:
                self._complain([letter], exc)
                failed.append(letter)
            else:
                letter.written()
        return failed

    def _send(self, client: producer.Producer, letter: Letter, *, whole: bool) -> Any:
        headers = letter_headers(letter, time.time())
        if not whole:
            headers.append((HEADER_PREFIX + "value-omitted", b"too large"))
        value = (letter.record.value or b"") if whole else b""
        return client.send(
            self._options.dead_letter_topic, value, key=letter.record.key, headers=headers
        )

    def _send_without_value(self, client: producer.Producer, letter: Letter) -> bool:
        """Keep at least where the record lies, when record and letter are too large together."""
        try:
            self._send(client, letter, whole=False).get(timeout=60)
        except (KombuKafkaError, KafkaError):
            return False
        letter.written()
        return True

    def _complain(self, letters: list[Letter], exc: Exception) -> None:
        record = letters[0].record
        logger.error(
            "Can't write %d dead letters to %s, the first for %s-%d at offset %d (%s): the records "
            "stay unacknowledged, and it is tried again until it works.",
            len(letters), self._options.dead_letter_topic, record.topic, record.partition,
            record.offset, exc,
        )  # fmt: skip
