"""A transport's knowledge of queues with topics: where they lie, what is declared, single messages."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kafka.structs import TopicPartition
from kombu.transport import virtual

from ..errors import BrokerUnavailableError
from ..exchanges.routing import topic_name
from ..priority import step_of, topic_of_step
from ..publishing import producer
from ..url import parse
from . import administration as queues

if TYPE_CHECKING:
    from ..channel import Channel
    from ..consumer import Consumer
    from ..message import Message
    from ..options import Options
    from ..wakeup import Wakeup

__all__ = ("DEFAULT_QUEUE", "QueueTransport")

#: The queue that Celery uses where nobody names one.
DEFAULT_QUEUE = "celery"
#: Seconds between two looks whether a queue that single messages are got from is at its end.
GET_SECONDS = 0.02


class QueueTransport(virtual.Transport):
    """Part of :class:`~kombu_kafka.transport.Transport`."""

    client: Any
    if TYPE_CHECKING:

        @cached_property
        def options(self) -> Options: ...

        @cached_property
        def consumer(self) -> Consumer: ...

        @cached_property
        def wakeup(self) -> Wakeup: ...

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        #: Queues declared here.
        self._declared: set[str] = set()
        #: Topic → how long its messages live, in milliseconds.
        self._ttls: dict[str, int] = {}
        #: Topics whose priority steps' topics are there, and those that single messages are got from.
        self._prepared: set[str] = set()
        self._gotten: set[str] = set()

    # Where queues lie

    @cached_property
    def default_topic(self) -> str | None:
        """The topic that the broker URL names after ``//``, or None."""
        return parse(self.client.hostname).topic

    def topic_of(self, queue: str) -> str:
        """Return the topic of a queue: its own name, or the URL's topic for Celery's default queue."""
        name = self.default_topic or queue if queue == DEFAULT_QUEUE else queue
        return topic_name(name)

    def topics_of(self, queue: str) -> list[str]:
        """Return all topics of a queue: one, or one for each priority step, the highest first."""
        topic = self.topic_of(queue)
        return [topic_of_step(topic, step) for step in self.options.priority_steps or (0,)]

    def topic_for(self, queue: str, priority: object) -> str:
        """Return where a message of a priority goes."""
        topic = self.topic_of(queue)
        step = step_of(priority, self.options.priority_steps)
        if step:
            self.prepare_steps(queue)
        return topic_of_step(topic, step)

    def prepare_steps(self, queue: str) -> None:
        """Make the topics of a queue's priority steps, where they are missing."""
        topic, *others = self.topics_of(queue)
        if others and topic not in self._prepared:
            self._prepared.add(topic)
            queues.make_alike(self.options, topic, others)

    # What is said of them

    def declared(self, queue: str, ttl: int | None) -> None:
        """Note a declaration.

        Arguments:
            queue: which queue.
            ttl: how long its messages live, in milliseconds; None is for ever.
        """
        self._declared.add(queue)
        for topic in self.topics_of(queue):
            if ttl is None:
                self._ttls.pop(topic, None)
            else:
                self._ttls[topic] = ttl

    def is_declared(self, queue: str) -> bool:
        """Whether a queue was declared over this connection."""
        return queue in self._declared

    def ttl(self, topic: str) -> int | None:
        """How long the messages of a topic live, in milliseconds; None is for ever."""
        return self._ttls.get(topic)

    def purged(self, topics: Collection[str], *, deleted: bool = False) -> None:
        """What lies in these topics was deleted, or they were: hand out nothing of it."""
        if "consumer" in self.__dict__:
            self.consumer.inbox.purged(topics, deleted=deleted)
        if deleted:
            producer.forget(topics)
            self._prepared.difference_update(topics)

    # Single messages

    def get(self, channel: Channel, queue: str, no_ack: bool) -> Message | None:
        """Return a message of a queue; None if all that lay in its partitions here was taken.

        Raises:
            BrokerUnavailableError: it took longer than ``connect_timeout`` to find out.
            KombuKafkaError: the consumer has failed.
        """
        topics = self.topics_of(queue)
        if not self._gotten.issuperset(topics):
            self._gotten.update(topics)
            self.begin(topics)
        inbox = self.consumer.inbox
        deadline = time.monotonic() + self.options.connect_timeout
        ends: Mapping[TopicPartition, int] | None = None
        try:
            while time.monotonic() < deadline:
                self.wakeup.clear()
                if self.consumer.error is not None:
                    raise self.consumer.error
                # Before it is looked for a message: what comes in between must not be passed over.
                taken = ends is not None and self._is_taken(ends)
                delivery = next(filter(None, (inbox.take({topic}) for topic in topics)), None)
                if delivery is not None:
                    message = channel.open(delivery, "", no_ack=no_ack)
                    if message is not None:
                        return message
                    continue
                if taken:
                    return None
                if ends is None:
                    ends = queues.ends(self.options, topics)
                    deadline = max(deadline, time.monotonic() + GET_SECONDS)  # to look once more
                    continue
                self.wakeup.wait(GET_SECONDS)
        finally:
            self.wakeup.set()  # whoever else waits looks for itself
        raise BrokerUnavailableError(
            f"What {queue} holds was not known within {self.options.connect_timeout:g} seconds: "
            f"check that the brokers are up and that this process gets partitions of it."
        )

    def _is_taken(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether all that lies before the ends was handed out, or waits here."""
        known = self.consumer.positions() is not None
        return not ends or (known and self.consumer.inbox.finished(ends))

    def begin(self, topics: Iterable[str]) -> None:
        """Have these topics fetched."""
        for topic in topics:
            self.consumer.consume(topic)
