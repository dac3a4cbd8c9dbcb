"""Who gets what comes from a topic: its consumers in turn, those alone whose channel has room."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .channel import Channel

__all__ = ("Receiver", "Receivers")


@dataclass(frozen=True)
class Receiver:
    """One consumer of a queue.

    Attributes:
        channel: the channel it consumes on.
        tag: its consumer tag.
        queue: the queue it consumes.
        no_ack: whether its messages are done with when they are handed over.
        callback: what takes a message.
    """

    channel: Channel
    tag: str
    queue: str
    no_ack: bool
    callback: Callable[[Any], Any]


class Receivers:
    """The consumers of one connection, by the topics that feed them."""

    def __init__(self) -> None:
        #: Topic → its rank (0 goes first) and its consumers, the next one in front.
        self._topics: dict[str, tuple[int, deque[Receiver]]] = {}

    def __len__(self) -> int:
        """Number of topics with a consumer."""
        return len(self._topics)

    def add(self, topic: str, receiver: Receiver, rank: int = 0) -> None:
        """Feed a consumer from a topic.

        Arguments:
            topic: where its messages come from.
            receiver: the consumer.
            rank: topics of a lower rank are emptied first.
        """
        self._topics.setdefault(topic, (rank, deque()))[1].append(receiver)

    def remove(self, channel: Channel, tag: str) -> list[str]:
        """Forget a consumer; return the topics that are left without any."""
        for _, receivers in self._topics.values():
            for receiver in [r for r in receivers if r.channel is channel and r.tag == tag]:
                receivers.remove(receiver)
        left = [topic for topic, (_, receivers) in self._topics.items() if not receivers]
        for topic in left:
            del self._topics[topic]
        return left

    def of(self, topic: str) -> list[Receiver]:
        """Return the consumers of a topic."""
        return list(self._topics[topic][1]) if topic in self._topics else []

    def ready(self) -> Iterator[set[str]]:
        """Give the topics that somebody has room for, those of the lowest rank first."""
        ranks: dict[int, set[str]] = {}
        for topic, (rank, receivers) in self._topics.items():
            if any(receiver.channel.can_consume() for receiver in receivers):
                ranks.setdefault(rank, set()).add(topic)
        for rank in sorted(ranks):
            yield ranks[rank]

    def next(self, topic: str) -> Receiver:
        """Give the consumer whose turn it is, of those with room.

        Raises:
            LookupError: nobody has room; `ready` did not name the topic.
        """
        receivers = self._topics[topic][1]
        for _ in range(len(receivers)):
            receiver = receivers[0]
            receivers.rotate(-1)
            if receiver.channel.can_consume():
                return receiver
        raise LookupError(f"no consumer of {topic} has room")
