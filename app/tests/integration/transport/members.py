"""Members of a consumer group, each with a connection and a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from kombu import Connection, Consumer, Queue

from tests.eventually import eventually

__all__ = ("Member",)


class Member(threading.Thread):
    """Consumes topics and keeps what it got, acknowledged at once or by the test.

    Attributes:
        got: the messages, as they came.
        acknowledge: whether they are acknowledged at once.
        on_message: called with each message before that.
        error: what ended it, or None.
    """

    def __init__(self, connection: Connection, *topics: str, acknowledge: bool = True) -> None:
        super().__init__(daemon=True)
        self.connection = connection
        self.got: list[Any] = []
        self.error: Exception | None = None
        self._topics = topics
        self.acknowledge = acknowledge
        self.on_message: Callable[[Any], Any] = lambda message: None
        self._calls: list[Callable[[], Any]] = []
        self._stop_asked = threading.Event()
        self.consumer: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.consumer = Consumer(
                self.connection.channel(),
                queues=[Queue(topic) for topic in self._topics],
                on_message=self._take,
            )
            self.consumer.consume()
            while not self._stop_asked.is_set():
                while self._calls:
                    self._calls.pop(0)()
                try:
                    self.connection.drain_events(timeout=0.1)
                except TimeoutError:
                    continue
        except Exception as exc:  # noqa: BLE001 - the test looks at it
            self.error = exc

    def _take(self, message: Any) -> None:
        self.got.append(message)
        self.on_message(message)
        if self.acknowledge:
            message.ack()

    def call(self, function: Callable[[], Any]) -> None:
        """Call `function` in the member's thread."""
        self._calls.append(function)

    @property
    def transport(self) -> Any:
        return self.connection.transport

    def partitions(self) -> set[tuple[str, int]] | None:
        """What it owns; None while that changes."""
        positions = self.transport.positions()
        return None if positions is None else set(positions)

    def generation(self) -> int | None:
        """The group's generation as this member knows it; None while the group rebalances."""
        joined = self.transport.consumer._ownership.client._coordinator.generation_if_stable()
        return None if joined is None else int(joined.generation_id)

    def numbers(self) -> list[int]:
        """The numbers in the messages it got."""
        return [message.payload["n"] for message in self.got]

    def leave(self) -> None:
        """End in order: stop handing out, commit, leave the group."""
        self._stop_asked.set()
        self.join(60)
        transport = self.connection.transport
        self.connection.release()
        transport.consumer.join()

    def vanish(self) -> None:
        """End as a killed process does: no commit, no goodbye."""
        self._stop_asked.set()
        self.join(60)
        consumer = self.transport.consumer
        consumer._step = lambda: consumer._stop.wait(0.05)
        consumer._let_go = lambda: None
        ownership = consumer._ownership
        for membership in (
            ownership.client._coordinator,
            *getattr(ownership, "_claims", {}).values(),
        ):
            membership._close_heartbeat()
        self.be_another_process()

    def be_another_process(self) -> None:
        """Let others of this process not wait for it: they stand for processes of their own."""
        self.transport.consumer._ownership.succession.release_all()


def settled(topic: str, *members: Member, sizes: list[int], limit: float = 120) -> list[set[int]]:
    """Wait until the members own a topic's partitions between them, by as many as `sizes` say."""

    def owned() -> list[set[int]] | None:
        found = [member.partitions() for member in members]
        if any(own is None for own in found):
            return None
        numbers = [{number for name, number in own or () if name == topic} for own in found]
        flat = sorted(number for own in numbers for number in own)
        shares = sorted(len(own) for own in numbers)
        done = flat == list(range(sum(sizes))) and shares == sorted(sizes)
        return numbers if done else None

    return eventually(owned, limit)  # type: ignore[no-any-return]
