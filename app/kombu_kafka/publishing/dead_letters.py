"""The dead letter topic: a record that can't be processed goes there whole.

Value, key and headers stay as they were, byte for byte; what is known of the failure is added as
headers prefixed ``dlq-``, all of them text. A record counts as done only once its letter is
confirmed by every in-sync replica; until then its partition waits.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from ..errors import KombuKafkaError, PublishError
from ..options import Options
from ..record import UNREADABLE, Headers
from ..wording import counted
from . import producer

__all__ = (
    "FIRST_FAILED_AT",
    "HEADER_PREFIX",
    "REPLAYS",
    "DeadLetterWriter",
    "Letter",
    "first_failure_of",
    "letter_headers",
    "replays_of",
    "writer",
)

logger = logging.getLogger(__name__)

#: What this transport adds begins with this.
HEADER_PREFIX = "dlq-"
#: How often a record was replayed; a replayed record has this header, and every letter.
REPLAYS = HEADER_PREFIX + "replays"
#: When it failed first, in seconds since the epoch; likewise.
FIRST_FAILED_AT = HEADER_PREFIX + "first-failed-at"
#: Longest value of an added header, in bytes.
MAX_HEADER_BYTES = 16_384
#: Longest name of a task, or id of one, that is repeated, in bytes.
MAX_NAME_BYTES = 255
#: Seconds before a letter that was not confirmed is written again.
RETRY_SECONDS = 1.0
#: Seconds for what is unwritten when the process ends.
DRAIN_SECONDS = 10.0
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


def letter_headers(letter: Letter, failed_at: float, owner: str = "") -> Headers:
    """Return a letter's headers: the record's own, then ours.

    What a record of anybody's says under our prefix stays the record's own: ``dlq-header-count``
    tells where ours begin, and a reader takes the last of that name.

    Arguments:
        letter: the letter.
        failed_at: when it failed, seconds since the epoch.
        owner: who owned the record's partition.
    """
    record = letter.record
    headers = record.headers or []
    said = dict(headers)
    unreadable = b""
    if record.timestamp < 0 and [*said] == [UNREADABLE]:
        headers, unreadable = (
            [],
            said[UNREADABLE] or b"",
        )  # a stand-in: nothing of it is the record's
    about = {
        "header-count": str(len(headers)),
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp),
        "task": _readable(said.get("task")),
        "task-id": _readable(said.get("id")),
        "reason": letter.reason,
        "owner": owner,
        "replays": str(replays_of(said)),
        "first-failed-at": f"{min(first_failure_of(said) or failed_at, failed_at):.3f}",
        "failed-at": f"{failed_at:.3f}",
        **letter.details,
    }
    if record.value is None:
        about["null-value"] = "true"  # the client can't send a record with neither key nor value
    if unreadable:
        about["unreadable"] = unreadable.decode(errors="replace")
    null = [str(place) for place, (_, value) in enumerate(headers) if value is None]
    if null:
        about["null-headers"] = ",".join(null)  # nor a header without a value
    original = [(name, b"" if value is None else value) for name, value in headers]
    return original + [
        (HEADER_PREFIX + name, _bounded(text)) for name, text in about.items() if text
    ]


def replays_of(headers: Mapping[str, bytes | None]) -> int:
    """Return how often a record with these headers was replayed; what is no count is none."""
    text = headers.get(REPLAYS) or b""
    return int(text) if text.isdigit() and len(text) <= 6 else 0


def first_failure_of(headers: Mapping[str, bytes | None]) -> float | None:
    """Return when a replayed record failed first, in seconds since the epoch, or None."""
    try:
        seconds = float(headers.get(FIRST_FAILED_AT) or b"")
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e11 else None


def _readable(raw: bytes | None) -> str:
    return (raw or b"")[:MAX_NAME_BYTES].decode(errors="replace")


def _bounded(text: str) -> bytes:
    """Encode, cut at the limit but never within a character."""
    raw = text.encode(errors="replace")[:MAX_HEADER_BYTES]
    return raw.decode(errors="ignore").encode()


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
        self._unwritten = 0
        self._pid = os.getpid()

    def write(self, letter: Letter) -> None:
        """Take a letter; ``letter.written`` is called, in another thread, once it is confirmed."""
        with self._lock:
            self._unwritten += 1
            self._letters.put(letter)
            if self._thread is None:
                # Exit handlers run last in, first out: so before the consumer's last commit.
                atexit.register(self.drain, DRAIN_SECONDS)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="kombu-kafka-dead-letters", daemon=True
                )
                self._thread.start()

    def drain(self, timeout: float) -> bool:
        """Wait until all letters are written, `timeout` seconds at most; return whether they are."""
        if os.getpid() != self._pid:
            return True  # a forked child: the letters are the parent's
        deadline = time.monotonic() + timeout
        while self._unwritten and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self._unwritten

    def _run(self) -> None:
        while True:
            batch = [self._letters.get()]
            while len(batch) < BATCH and not self._letters.empty():
                batch.append(self._letters.get())
            while batch:
                try:
                    self._attempt(batch)
                except Exception as exc:  # noqa: BLE001 (whatever it was, the letters must not be lost)
                    self._complain(batch, exc)
                if batch:
                    time.sleep(RETRY_SECONDS)

    def _attempt(self, batch: list[Letter]) -> None:
        """Write a batch; what is confirmed is taken out of it."""
        client = producer.shared(self._options)
        futures: list[tuple[Letter, Any]] = []
        for letter in list(batch):
            try:
                futures.append((letter, self._send(client, letter)))
            except PublishError as exc:
                self._shorten(client, batch, letter, exc)
        for letter, future in futures:
            try:
                client.confirm(future)
            except (MessageSizeTooLargeError, RecordListTooLargeError) as exc:
                self._shorten(client, batch, letter, exc)
            except KafkaError as exc:
                self._complain([letter], exc)
            else:
                self._confirmed(batch, letter)

    def _shorten(
        self, client: producer.Producer, batch: list[Letter], letter: Letter, exc: Exception
    ) -> None:
        """Keep at least where the record lies, when record and letter are too large together."""
        for omitted in (("value",), ("value", "key", "headers")):
            try:
                self._send(client, letter, omitted).get(timeout=60)
            except (KombuKafkaError, KafkaError):
                continue
            self._confirmed(batch, letter)
            return
        self._complain([letter], exc)

    def _confirmed(self, batch: list[Letter], letter: Letter) -> None:
        batch.remove(letter)
        letter.written()
        with self._lock:
            self._unwritten -= 1

    def _send(
        self, client: producer.Producer, letter: Letter, omitted: tuple[str, ...] = ()
    ) -> Any:
        record = letter.record
        headers = letter_headers(letter, time.time(), self._options.client_id)
        if "headers" in omitted:
            headers = headers[int(dict(headers)[HEADER_PREFIX + "header-count"]) :]
            headers += [(HEADER_PREFIX + "header-count", b"0")]
        headers += [(f"{HEADER_PREFIX}{part}-omitted", b"too large") for part in omitted]
        return client.send(
            self._options.dead_letter_topic,
            b"" if "value" in omitted else record.value or b"",
            key=None if "key" in omitted else record.key,
            headers=headers,
        )

    def _complain(self, letters: list[Letter], exc: Exception) -> None:
        record = letters[0].record
        logger.error(
            "Can't write %s to %s, the first for %s-%d at offset %d (%s): the records stay "
            "unacknowledged, and it is tried again until it works.",
            counted(len(letters), "dead letter"), self._options.dead_letter_topic, record.topic,
            record.partition, record.offset, exc,
        )  # fmt: skip


_writers: dict[Options, DeadLetterWriter] = {}
_writers_lock = threading.Lock()


def writer(options: Options) -> DeadLetterWriter:
    """Return this process's writer for `options`."""
    with _writers_lock:
        if options not in _writers:
            _writers[options] = DeadLetterWriter(options)
        return _writers[options]


def _after_fork_in_child() -> None:
    global _writers, _writers_lock
    _writers, _writers_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
