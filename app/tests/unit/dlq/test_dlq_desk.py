"""When an act counts as done: brokers confirm a transaction before readers see what it wrote."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

from kafka.structs import TopicPartition

from kombu_kafka.options import Options
from scheduler.dlq.desk import Deed, Desk
from scheduler.dlq.history import Act, History
from scheduler.dlq.letters import LetterId
from scheduler.dlq.reader import Reader


def test_an_act_is_done_when_who_looks_next_sees_it() -> None:
    options = Options.of("kafka://localhost//t", {"dead_letter_topic": "d"})
    ends = iter([7, 7, 9])  # the record lies at 7, the mark that ends its transaction at 8
    looked: list[int] = []

    def bounds(topic: str) -> dict[TopicPartition, tuple[int, int]]:
        assert topic == "d_history"
        looked.append(next(ends))
        return {TopicPartition(topic, 0): (0, looked[-1])}

    reader = Mock(spec=Reader, bounds=bounds)
    history = Mock(spec=History, topic="d_history", record=lambda *_: (b"", b""))
    history.refresh.side_effect = lambda _: looked.append(0)
    desk = Desk(options, reader, history)
    desk._client = Mock()
    desk._client.send.return_value.get.return_value = SimpleNamespace(
        topic="d_history", partition=0, offset=7
    )
    desk.carry_out([Deed(LetterId(0, 0), Act(act="skipped", by="me", at=1.0))])
    assert looked == [7, 7, 9, 0], "the history is read once all is seen"
