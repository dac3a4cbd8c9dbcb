"""A bound partition has one owner: who may hand out, and who may commit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer
from kafka.errors import ProducerFencedError
from kafka.structs import OffsetAndMetadata, TopicPartition

from kombu_kafka.errors import NotOwnerError
from kombu_kafka.options import Options
from kombu_kafka.ownership.fence import Fence, commit_all
from kombu_kafka.ownership.presence import others, owners_of_topics
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .conftest import Connect, Look
from .members import Member, settled

#: Seconds after which an owner that is not heard of counts as dead: so long as nobody takes a live one for
#: dead that a busy machine holds up.
SESSION = 30.0
#: The same, where one has died, or waits for another that may have.
SHORT = 1.5


def _bound(
    connect: Connect, topic: str, name: str, *partitions: int, session: float = SESSION
) -> Member:
    options = {"partitions": list(partitions), "worker_name": name, "session_timeout": session}
    return Member(connect(group_id=topic, **options), topic)


def _shared(connect: Connect, topic: str, name: str, session: float = SESSION) -> Member:
    return Member(connect(group_id=topic, worker_name=name, session_timeout=session), topic)


def _refused(member: Member) -> str:
    error = eventually(lambda: member.error)
    assert isinstance(error, NotOwnerError), error
    return str(error)


def test_a_second_owner_is_refused_and_the_first_goes_on(
    connect: Connect, topic: str, publish: Any
) -> None:
    first = _bound(connect, topic, "one@host", 0)
    eventually(first.partitions)
    first.be_another_process()
    sentence = _refused(_bound(connect, topic, "two@host", 0, 1, session=SHORT))
    assert f"{topic}-0 is owned by one@host (process" in sentence
    assert "so two@host (process" in sentence
    publish(topic, range(3), partition=0)
    eventually(lambda: first.numbers() == [0, 1, 2])


def test_a_partition_moves_at_once_when_its_owner_has_gone(
    connect: Connect, topic: str, publish: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = _bound(connect, topic, "worker-0@here", 0)
    publish(topic, range(2), partition=0)
    eventually(lambda: first.numbers() == [0, 1])
    first.leave()
    second = _bound(connect, topic, "worker-0@there", 0)
    publish(topic, range(2, 4), partition=0)
    eventually(lambda: second.numbers() == [2, 3])
    assert "in case it is dead" not in caplog.text


def test_a_dead_owner_is_waited_for_no_longer_than_its_session(
    connect: Connect, topic: str, publish: Any
) -> None:
    first = _bound(connect, topic, "worker-0@here", 0, session=SHORT)
    eventually(first.partitions)
    first.vanish()
    second = _bound(connect, topic, "worker-0@there", 0)
    publish(topic, range(2), partition=0)
    eventually(lambda: second.numbers() == [0, 1])


def test_a_worker_of_the_same_name_takes_over_at_once_and_fences(
    connect: Connect, topic: str, publish: Any
) -> None:
    """As after `kill -9`: but here the first still lives, so it must end, and say why."""
    first = _bound(connect, topic, "worker-0@here", 0)
    eventually(first.partitions)
    first.be_another_process()
    second = _bound(connect, topic, "worker-0@here", 0)
    assert "is owned by worker-0@here (process" in _refused(first)
    publish(topic, range(2), partition=0)
    eventually(lambda: second.numbers() == [0, 1])


def test_bound_and_sharing_workers_of_a_topic_refuse_each_other(
    connect: Connect, topic: str
) -> None:
    bound = _bound(connect, topic, "worker-0@host", 0)
    eventually(bound.partitions)
    sharing = _shared(connect, topic, "shares@host", session=SHORT)
    assert f"({topic}-0 by worker-0@host (process" in _refused(sharing)
    bound.leave()
    sharing.leave()
    sharing = _shared(connect, topic, "shares@host")
    settled(topic, sharing, sizes=[4])
    sentence = _refused(_bound(connect, topic, "worker-0@host", 0, session=SHORT))
    assert "are bound to this worker, worker-0@host" in sentence
    assert "share the partitions of" in sentence
    assert "(shares-host)" in sentence
    assert sharing.error is None


def test_other_topics_of_the_group_may_be_shared(
    connect: Connect, look: Look, kafka: LocalKafka, topic: str, publish: Any
) -> None:
    """Kafka refuses a plain commit beside members of the group: ours is a transaction."""
    other = f"{topic}-other"
    kafka.create_topic(other, 1)
    options = {"group_id": topic, "session_timeout": SESSION}
    sharing = Member(connect(**options), other)
    settled(other, sharing, sizes=[1])
    bound = Member(connect(**options, partitions=[0]), topic)
    publish(topic, range(3), partition=0)
    eventually(lambda: bound.numbers() == [0, 1, 2])
    bound.leave()
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=topic)
    # Kafka shows what a transaction committed a moment after it has confirmed its end.
    eventually(lambda: consumer.committed(TopicPartition(topic, 0)) == 3)
    consumer.close()


def test_who_is_there(connect: Connect, kafka: LocalKafka, topic: str) -> None:
    options = Options.of(kafka.url(), {"group_id": topic, "connect_timeout": 10})
    assert owners_of_topics(options, [topic]) == {}
    bound = _bound(connect, topic, "worker-0@host", 0)
    eventually(bound.partitions)
    found = owners_of_topics(options, [topic, "absent"])
    assert {name: owner.name for name, owner in found.items()} == {f"{topic}-0": "worker-0@host"}
    owned, shared = others(options, [TopicPartition(topic, 0), TopicPartition(topic, 1)])
    assert list(owned) == [TopicPartition(topic, 0)]
    assert shared == {}


@pytest.fixture
def clients(kafka: LocalKafka, topic: str) -> Iterator[list[KafkaConsumer]]:
    settings = {"bootstrap_servers": kafka.bootstrap, "group_id": topic}
    made = [KafkaConsumer(**settings, isolation_level="read_committed") for _ in range(2)]
    yield made
    for client in made:
        client.close()


def _commit(fence: Fence, offset: int) -> None:
    (error,) = commit_all({fence: OffsetAndMetadata(offset, "", -1)}, 60).get().values()
    if error is not None:
        raise error


def test_commits_of_an_owner_before_the_last_are_refused(
    clients: list[KafkaConsumer], topic: str
) -> None:
    partition = TopicPartition(topic, 0)
    first, second = (Fence(client, topic, partition) for client in clients)
    first.begin(60)
    _commit(first, 1)
    second.begin(60)
    with pytest.raises(ProducerFencedError):
        _commit(first, 5)
    with pytest.raises(ProducerFencedError):
        first.confirm(60)
    _commit(second, 2)
    second.confirm(60)
    assert clients[0].committed(partition) == 2


def test_a_transaction_that_a_killed_owner_left_open_is_ended(
    clients: list[KafkaConsumer], topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = TopicPartition(topic, 0)
    first, second = (Fence(client, topic, partition) for client in clients)
    first.begin(60)
    _commit(first, 1)
    ask = first._ask

    async def killed(request: Any) -> Any:
        if type(request).__name__ == "EndTxnRequest":
            raise ProducerFencedError("killed before the end")
        return await ask(request)

    monkeypatch.setattr(first, "_ask", killed)
    with pytest.raises(ProducerFencedError, match="killed"):
        _commit(first, 7)
    second.begin(60)
    assert clients[1].committed(partition) == 1
    _commit(second, 3)
    assert clients[1].committed(partition) == 3
