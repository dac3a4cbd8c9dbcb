"""Acts on letters: what is sent and what the history says of it are one transaction of Kafka's.

Whoever opens a desk gets the transactional id of the dead letter topic. That aborts what an earlier
one left half done and fences it, should it still live; then the history is read. So a letter that
the history calls new was replayed by nobody, and nobody else can replay it before we do.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer
from kafka.errors import (
    InvalidProducerEpochError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFencedError,
    RecordListTooLargeError,
)
from kafka.structs import TopicPartition

from kombu_kafka.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    KombuKafkaError,
    PublishError,
)
from kombu_kafka.options import Options
from scheduler.dlq.history import Act, History, ensure_topic
from scheduler.dlq.letters import LetterId
from scheduler.dlq.outgoing import Outgoing
from scheduler.dlq.reader import Reader, reachable

__all__ = ["Deed", "Desk", "FencedError", "person"]

#: A desk that dies in a transaction holds up the readers of its topics for as long as this.
TRANSACTION_TIMEOUT_MS = 15_000
#: Seconds for each step of a transaction.
TIMEOUT = 30
#: Seconds between two looks whether readers see what was committed.
LOOK_EVERY = 0.02
#: Largest record sent; what the topic takes is for the brokers to say.
MAX_REQUEST_BYTES = 32 << 20


class FencedError(KombuKafkaError):
    """Somebody else has opened a desk for the same topic; what this one had begun was undone."""


@dataclass(frozen=True)
class Deed:
    """One act on one letter, and the record that it sends, if any."""

    letter: LetterId
    act: Act
    outgoing: Outgoing | None = None


class Desk:
    """Carries deeds out.

    Args:
        options: Brokers and the dead letter topic.
        reader: Reads the history.
        history: Of that topic; up to date once the desk is open.
    """

    def __init__(self, options: Options, reader: Reader, history: History) -> None:
        self._options = options
        self._reader = reader
        self._history = history
        self._client: Any = None

    def __enter__(self) -> Desk:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Become the only one who acts, and learn what was done before.

        Raises:
            ConfigurationError: This client may not, or the history's topic would forget.
            BrokerUnavailableError: The brokers don't answer.
        """
        self.close()
        if not self._history.topic_id:
            raise ConfigurationError(
                f"There is no topic {self._options.dead_letter_topic} to act on: name the dead letter"
                " topic in CELERY_DEAD_LETTER_TOPIC."
            )
        ensure_topic(self._options)
        with reachable(self._options):
            self._client = KafkaProducer(
                **self._options.client_settings(),
                transactional_id=f"scheduler-dlq-{self._options.dead_letter_topic}",
                transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
                acks="all",
                delivery_timeout_ms=TIMEOUT * 1000,
                max_block_ms=int(self._options.connect_timeout * 1000),
                max_request_size=MAX_REQUEST_BYTES,
                metrics_enabled=False,
            )
            self._client.init_transactions()
        self._history.refresh(self._reader)

    def close(self) -> None:
        """Let go of the brokers; what was not committed is undone."""
        client, self._client = self._client, None
        if client is not None:
            client.close(timeout=1, null_logger=True)

    def write_letters(self, letters: Sequence[tuple[Outgoing, Act]]) -> list[LetterId]:
        """Write letters and an act on each, all or none; return where they lie now.

        Raises:
            KombuKafkaError: as `carry_out`.
        """
        places: list[LetterId] = []

        def write(client: Any) -> list[Any]:
            written = [_send(client, record) for record, _ in letters]
            client.flush(timeout=TIMEOUT)
            for future in written:
                meta = future.get(timeout=TIMEOUT)
                places.append(LetterId(meta.partition, meta.offset))
            written += [
                self._note(client, place, [act])
                for place, (_, act) in zip(places, letters, strict=True)
            ]
            return written

        self._commit(write)
        return places

    def carry_out(self, deeds: Sequence[Deed]) -> None:
        """Do all of these or none, and say so in the history.

        Raises:
            FencedError: Somebody else acts now; nothing of this was done.
            PublishError: A record can't be stored as it is; nothing of this was done.
            BrokerUnavailableError: The brokers don't answer; whether it was done the history says.
        """

        def write(client: Any) -> list[Any]:
            sent = []
            for letter, same in _by_letter(deeds).items():
                sent += [_send(client, deed.outgoing) for deed in same if deed.outgoing]
                sent.append(self._note(client, letter, [deed.act for deed in same]))
            return sent

        self._commit(write)

    def _note(self, client: Any, letter: LetterId, acts: list[Act]) -> Any:
        key, value = self._history.record(letter, acts)
        return client.send(self._history.topic, value=value, key=key)

    def _commit(self, write: Callable[[Any], list[Any]]) -> None:
        """Do what `write` sends in one transaction; once it is back, who looks sees what was done."""
        try:
            written = self._transaction(write)
        except (ProducerFencedError, InvalidProducerEpochError) as exc:
            self.close()
            raise FencedError(
                f"Somebody else has begun to act on {self._options.dead_letter_topic}, and this was"
                " stopped: look at 'scheduler dlq history', then run it again."
            ) from exc
        except (MessageSizeTooLargeError, RecordListTooLargeError) as exc:
            self._abort()
            raise PublishError(f"a record is too large for its topic ({exc})") from exc
        except KafkaError:
            self.close()
            with reachable(self._options):
                raise
        self._wait_until_seen(written)
        self._history.refresh(self._reader)

    def _transaction(self, write: Callable[[Any], list[Any]]) -> list[Any]:
        """Commit what `write` sends; return where it lies."""
        client = self._client
        client.begin_transaction()
        futures = write(client)
        client.flush(timeout=TIMEOUT)
        written = [future.get(timeout=TIMEOUT) for future in futures]
        result = client._transaction_manager.begin_commit()  # commit_transaction() waits for ever
        client._sender.wakeup()
        if not result.wait(timeout_ms=TIMEOUT * 1000):
            self.close()
            raise BrokerUnavailableError(
                f"Kafka at {', '.join(self._options.hosts)} did not confirm within {TIMEOUT} seconds:"
                " whether it was done 'scheduler dlq history' says; running it again does nothing"
                " twice."
            )
        return written

    def _wait_until_seen(self, written: Sequence[Any]) -> None:
        """Wait until readers see what lies in the topics of letters and history.

        Brokers confirm a transaction before they mark its end in the partitions it wrote to. The topic
        that a task went back to is not waited for: others may have transactions open there for long.
        """
        deadline = time.monotonic() + TIMEOUT
        for topic in (self._options.dead_letter_topic, self._history.topic):
            last = {
                TopicPartition(meta.topic, meta.partition): meta.offset
                for meta in written
                if meta.topic == topic
            }
            while last and time.monotonic() < deadline:
                bounds = self._reader.bounds(topic)
                # A partition that this reader has not heard of yet can't be waited for.
                last = {
                    one: at for one, at in last.items() if one in bounds and bounds[one][1] <= at
                }
                if last:
                    time.sleep(LOOK_EVERY)

    def _abort(self) -> None:
        try:
            self._client.abort_transaction()
        except KafkaError:
            self.open()


def _by_letter(deeds: Sequence[Deed]) -> dict[LetterId, list[Deed]]:
    letters: dict[LetterId, list[Deed]] = {}
    for deed in deeds:
        letters.setdefault(deed.letter, []).append(deed)
    return letters


def _send(client: Any, record: Outgoing) -> Any:
    return client.send(
        record.topic,
        value=record.value,
        key=record.key,
        headers=record.headers,
        partition=record.partition,
    )


def person() -> str:
    """Say who runs this: the one who logged in, also behind sudo, and the host."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
