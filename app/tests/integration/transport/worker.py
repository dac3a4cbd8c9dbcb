"""A worker that acknowledges what the test says, in the test's own process and thread."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kombu import Connection, Consumer, Queue

from tests.eventually import eventually

from .conftest import Connect

__all__ = ("Worker",)


class Worker:
    """Takes a topic's messages as they come and acknowledges them when told."""

    def __init__(self, connect: Connect, topic: str, **options: Any) -> None:
        # A group of its own: Kafka refuses plain commits, as a person's tool makes, beside members of a group.
        usual = {"group_id": topic, "partitions": [0], "ordering": "none"}
        self.connection: Connection = connect(**{**usual, **options})
        self.messages: dict[int, Any] = {}
        self.consumer = Consumer(
            self.connection.channel(), queues=[Queue(topic)], on_message=self._take
        )
        self.consumer.consume()

    def _take(self, message: Any) -> None:
        self.messages[message.delivery_info["offset"]] = message

    def read(self, offsets: set[int]) -> None:
        """Wait for these offsets, and see that no other comes."""

        def all_there() -> bool:
            with suppress(TimeoutError):
                self.connection.drain_events(timeout=0.2)
            return offsets <= set(self.messages)

        eventually(all_there)
        assert set(self.messages) == offsets

    def ack(self, *offsets: int) -> None:
        for offset in offsets:
            self.messages[offset].ack()

    def reject(self, message: Any) -> None:
        """Reject a message, and wait until its dead letter is confirmed."""
        message.reject()
        eventually(lambda: self.inbox.find(message.delivery_tag) is None)

    @property
    def inbox(self) -> Any:
        return self.connection.transport.consumer.inbox

    def die(self) -> None:
        """End without a last commit, as a killed process does."""
        self.inbox.commits = lambda **_: {}
        self.end()

    def end(self) -> None:
        """End in order; what is in flight will run again."""
        self.connection.transport.consumer.join()
