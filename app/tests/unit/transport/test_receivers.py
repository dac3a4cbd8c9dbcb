"""Whose turn it is."""

from __future__ import annotations

from typing import Any

import pytest

from kombu_kafka.receivers import Receiver, Receivers


class Room:
    """A channel, as far as receivers look at one."""

    def __init__(self, room: bool = True) -> None:
        self.room = room

    def can_consume(self) -> bool:
        return self.room


def _receiver(channel: Any, tag: str) -> Receiver:
    return Receiver(channel, tag, "q", False, lambda message: None)


def test_consumers_of_one_topic_take_turns() -> None:
    receivers = Receivers()
    for tag in "ab":
        receivers.add("t", _receiver(Room(), tag))
    assert [receivers.next("t").tag for _ in range(4)] == ["a", "b", "a", "b"]


def test_a_channel_without_room_holds_up_nobody_else() -> None:
    full, free = Room(False), Room()
    receivers = Receivers()
    receivers.add("t", _receiver(full, "full"))
    receivers.add("t", _receiver(free, "free"))
    receivers.add("u", _receiver(full, "full"))
    assert list(receivers.ready()) == [{"t"}]
    assert [receivers.next("t").tag for _ in range(2)] == ["free", "free"]
    free.room = False
    assert list(receivers.ready()) == []
    with pytest.raises(LookupError):
        receivers.next("t")


def test_lower_ranks_come_first() -> None:
    receivers = Receivers()
    receivers.add("later", _receiver(Room(), "a"), rank=1)
    receivers.add("now", _receiver(Room(), "a"))
    assert list(receivers.ready()) == [{"now"}, {"later"}]


def test_a_topic_ends_with_its_last_consumer() -> None:
    one, two = Room(), Room()
    receivers = Receivers()
    receivers.add("t", _receiver(one, "1"))
    receivers.add("t", _receiver(two, "1"))
    channel: Any = one
    assert receivers.remove(channel, "1") == []
    channel = two
    assert receivers.remove(channel, "1") == ["t"]
    assert len(receivers) == 0
