"""Delayed messages: what lies in the delay topic, when it is forwarded, and that it is so once."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from kombu import Connection

from kombu_kafka.delay import backlog as delay_backlog
from kombu_kafka.delay import level as delay_level
from kombu_kafka.delay import messages as delay
from kombu_kafka.delay import revoked
from kombu_kafka.delay import topics as delay_topics
from kombu_kafka.delay.dispatcher import Dispatcher
from kombu_kafka.delay.watch import BATCH, Watch
from kombu_kafka.errors import ConfigurationError, PublishError
from kombu_kafka.options import Options
from kombu_kafka.publishing import producer
from scheduler import processes
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .conftest import CONNECT_SECONDS, Look

Make = Callable[..., Options]


@pytest.fixture
def options(kafka: LocalKafka, topic: str) -> Make:
    """Makes options with a delay topic, a group and a dead letter topic of this test's own."""
    kafka.create_topic(f"{topic}-dlq", 1)

    def make(**more: Any) -> Options:
        given = {
            "group_id": topic,
            "delay_topic": f"{topic}-delay",
            "dead_letter_topic": f"{topic}-dlq",
            "connect_timeout": CONNECT_SECONDS,
            **more,
        }
        return Options.of(kafka.url(), given)

    return make


@pytest.fixture
def dispatch() -> Iterator[Callable[[Options], Dispatcher]]:
    """Starts dispatchers; all end with the test."""
    started: list[Dispatcher] = []

    def start(options: Options) -> Dispatcher:
        started.append(Dispatcher(options))
        started[-1].start()
        return started[-1]

    yield start
    for dispatcher in started:
        dispatcher.join()
    producer.close_all()


def in_ms(seconds: float) -> int:
    return int((time.time() + seconds) * 1000)


def send(options: Options, topic: str, name: str, seconds: float, **more: Any) -> int:
    """Publish a message that is due in `seconds`; return when that is."""
    due = in_ms(seconds)
    headers = [("id", name.encode()), ("due", str(due).encode())]
    delay.publish(options, topic, b"body", due=due, headers=headers, **more)
    return due


class Ledger:
    """What arrived in a topic, and how late, as a reader of committed records sees it."""

    def __init__(self, kafka: LocalKafka, topic: str) -> None:
        self.ids: Counter[str] = Counter()
        self.late: dict[str, int] = {}
        #: When they were due, in the order in which they arrived.
        self.dues: list[int] = []
        #: When the latest arrived.
        self.last = 0
        self.client = KafkaConsumer(
            topic, bootstrap_servers=kafka.bootstrap, group_id=None, enable_auto_commit=False,
            auto_offset_reset="earliest", isolation_level="read_committed",
        )  # fmt: skip

    def look(self) -> None:
        for records in self.client.poll(timeout_ms=100).values():
            for record in records:
                headers = dict(record.headers)
                name = headers["id"].decode()
                self.ids[name] += 1
                self.dues.append(int(headers["due"]))
                self.late[name] = record.timestamp - self.dues[-1]
                self.last = max(self.last, record.timestamp)

    def wait(self, count: int, limit: float = 120) -> None:
        deadline = time.monotonic() + limit
        while len(self.ids) < count:
            self.look()
            if time.monotonic() > deadline:
                pytest.fail(f"{len(self.ids)} of {count} messages after {limit} seconds")


@pytest.fixture
def ledger(kafka: LocalKafka, topic: str) -> Iterator[Ledger]:
    made = Ledger(kafka, topic)
    yield made
    made.client.close()


def test_a_message_arrives_when_due_as_it_was_published(
    options: Make, topic: str, look: Look, ledger: Ledger, dispatch: Callable[[Options], Dispatcher]
) -> None:
    given = options()
    headers = [("task", b"t"), ("id", b"a"), ("id", b"again"), ("\u00fc", b"\xff\x00")]
    places: list[dict[str, Any]] = [{"key": b"k"}, {"partition": 3}, {"key": b"", "partition": 0}]
    for number, more in enumerate(places):
        direct = [*headers, ("n", str(number).encode())]
        producer.shared(given).publish(topic, b"\x00raw\xff", headers=direct, **more)
        delay.publish(given, topic, b"\x00raw\xff", due=in_ms(3), headers=direct, **more)
    assert len(look.records(topic)) == 3
    assert len(look.records(f"{topic}-delay")) == 3
    dispatcher = dispatch(given)
    eventually(lambda: len(look.records(topic)) == 6)

    def image(record: Any) -> tuple[Any, ...]:
        return record.partition, record.key, record.value, record.headers

    seen = Counter(str(image(record)) for record in look.records(topic))
    assert set(seen.values()) == {2}
    # A transaction is counted a moment after its records can be read.
    eventually(lambda: dispatcher.statistics.forwarded == 3)


def test_messages_are_never_early_and_their_levels_change_nothing_in_that(
    options: Make, topic: str, ledger: Ledger, dispatch: Callable[[Options], Dispatcher],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    #: When each step of the dispatcher's began, and how long it was to wait: milliseconds.
    steps: list[list[float]] = []
    step, patience = Watch._step, Watch._patience

    def noted(watch: Watch) -> None:
        steps.append([time.time() * 1000, 0])
        step(watch)

    def waits(watch: Watch, longest: int) -> int:
        steps[-1][1] = patience(watch, longest)
        return int(steps[-1][1])

    monkeypatch.setattr(Watch, "_step", noted)
    monkeypatch.setattr(Watch, "_patience", waits)
    given = options()
    dispatcher = dispatch(given)
    eventually(lambda: dispatcher.statistics.active)
    # More than is read ahead, so that every level is paused and resumed while others go on.
    for number in range(1500):
        send(given, topic, str(number), 1 + number % 100 * 0.04, key=b"x" * 200, confirm=False)
    ledger.wait(1500)
    assert set(ledger.ids.values()) == {1}
    assert min(ledger.late.values()) >= 0
    # Not how precise it is (that depends on the machine), but that a level's wait is no lateness: what was due
    # before others in other levels goes before them. (All have one key, and so lie in one partition.) Only what was
    # not read yet is overtaken, where the dispatcher, which reads a second ahead, was held up twice for as long.
    latest = accumulate(ledger.dues, max)
    overtaken = [before - due for before, due in zip(latest, ledger.dues, strict=True)]
    busy = [(at, wait) for at, wait in steps if min(ledger.dues) <= at <= ledger.last]
    held_up = max(after - before - wait for (before, wait), (after, _) in pairwise(busy))
    assert sorted(overtaken)[1350] < max(300, 2 * held_up - 500)


def test_a_month_lies_in_its_level_and_moves_only_when_it_must(
    options: Make, topic: str, look: Look, dispatch: Callable[[Options], Dispatcher]
) -> None:
    given = options()
    for days in (1, 31, 80):
        send(given, topic, str(days), days * 86400)
    dispatcher = dispatch(given)
    eventually(lambda: dispatcher.statistics.active)
    eventually(lambda: dispatcher.statistics.waiting == 3)
    send(given, topic, "soon", 0.3)
    eventually(lambda: look.records(topic))
    assert [r.partition for r in look.records(f"{topic}-delay") if r.partition > 5] == [19, 24, 25]

    def waiting() -> dict[int, delay_backlog.LevelBacklog] | None:
        # What is not read in time is left out.
        found = {level.number: level for level in delay_backlog.backlog(given) if level.waiting}
        return found if [number for number in found if number > 5] == [19, 24, 25] else None

    levels = eventually(waiting)
    assert levels[24].ready_at == pytest.approx(time.time() + 0.1 * 2**24, abs=60)
    assert levels[24].late == 0
    with pytest.raises(PublishError, match=r"due in 91\.0 days, and at most 90 are allowed"):
        send(given, topic, "too far", 91 * 86400)


def test_what_is_due_now_goes_straight_and_so_does_everything_without_a_delay_topic(
    options: Make, topic: str, look: Look
) -> None:
    send(options(), topic, "past", -5)
    send(options(), topic, "now", 0.01)
    send(options(delay_topic=None), topic, "in the worker", 60)
    assert len(look.records(topic)) == 3


def test_the_channel_delays_by_the_header_eta(
    options: Make, topic: str, kafka: LocalKafka, look: Look,
    dispatch: Callable[[Options], Dispatcher],
) -> None:  # fmt: skip
    given = {"delay_topic": f"{topic}-delay", "group_id": topic}
    with Connection(kafka.url(), transport_options=given) as connection:
        # The last one when there is a connection: its second must not be over before it is published.
        for eta in (timedelta(days=-1), None, timedelta(seconds=3)):
            text = "tomorrow" if eta is None else (datetime.now(UTC) + eta).isoformat()
            connection.Producer().publish(
                {}, routing_key=topic, serializer="json", headers={"eta": text}, partition=2
            )
        assert len(look.records(topic)) == 2
        dispatch(options())
        arrived = eventually(lambda: look.records(topic)[2:])
    assert arrived[0].partition == 2
    assert (
        arrived[0].timestamp
        >= datetime.fromisoformat(dict(arrived[0].headers)["eta"].decode()).timestamp() * 1000
    )


def test_a_foreign_producer_delays_a_message_with_three_headers_at_most(
    options: Make, topic: str, kafka: LocalKafka, look: Look,
    dispatch: Callable[[Options], Dispatcher],
) -> None:  # fmt: skip
    given = options()
    delay_topics.ensure(given)
    client = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    eta = (datetime.now(UTC) + timedelta(seconds=1)).isoformat().encode()
    target = ("delay-topic", topic.encode())
    client.send(f"{topic}-delay", b"1", headers=[target, ("eta", eta)], partition=0)
    client.send(f"{topic}-delay", b"2", headers=[target, ("delay-until", b"1")], partition=0)
    # Three that nobody can forward.
    client.send(f"{topic}-delay", b"3", headers=[("eta", eta)], partition=0)
    client.send(f"{topic}-delay", b"4", headers=[target, ("delay-until", b"soon")], partition=3)
    client.send(f"{topic}-delay", None, key=b"5", headers=[target], partition=0)
    client.close()
    dispatch(given)
    eventually(lambda: len(look.records(topic)) == 2)
    assert sorted(record.value for record in look.records(topic)) == [b"1", b"2"]
    letters = eventually(lambda: len(look.records(f"{topic}-dlq")) == 3) and look.records(
        f"{topic}-dlq"
    )
    assert sorted(letter.value for letter in letters) == [b"", b"3", b"4"]
    assert {dict(letter.headers)["dlq-reason"] for letter in letters} == {b"undeliverable"}
    assert {dict(letter.headers)["dlq-topic"] for letter in letters} == {f"{topic}-delay".encode()}


def test_what_its_topic_refuses_becomes_a_dead_letter_and_the_rest_arrives(
    options: Make, topic: str, kafka: LocalKafka, look: Look,
    dispatch: Callable[[Options], Dispatcher],
) -> None:  # fmt: skip
    given = options()
    kafka.create_topic(f"{topic}-small", 1, {"max.message.bytes": "2000"})
    for number in range(5):
        send(given, topic, f"good-{number}", 2)
        name = f"bad-{number}"
        headers = [("id", name.encode())]
        value = b"x" * (5000 if number == 3 else 10)
        delay.publish(given, f"{topic}-small", value, due=in_ms(2), headers=headers, key=b"key")
    # A partition, and a topic, that were there when the message was published.
    record = [("delay-topic", topic.encode()), ("delay-until", b"1"), ("delay-partition", b"9")]
    producer.shared(given).publish(f"{topic}-delay", b"partition", headers=record, partition=0)
    record = [("delay-topic", b"not a topic!"), ("delay-until", b"1"), ("id", b"z")]
    producer.shared(given).publish(f"{topic}-delay", b"topic", headers=record, partition=0)
    dispatch(given)
    eventually(lambda: len(look.records(f"{topic}-dlq")) == 3)
    eventually(lambda: len(look.records(topic)) == 5)
    eventually(lambda: len(look.records(f"{topic}-small")) == 4)
    letters = {dict(letter.headers)["dlq-topic"]: letter for letter in look.records(f"{topic}-dlq")}
    small = letters[f"{topic}-small".encode()]
    assert (small.value, small.key) == (b"x" * 5000, b"key")
    assert "delay-topic" not in dict(small.headers)
    reasons = {dict(letter.headers)["dlq-reason"] for letter in letters.values()}
    assert reasons == {b"refused", b"partition-missing", b"topic-missing"}


def test_revoked_messages_are_forwarded_as_expired_and_the_id_is_forgotten(
    options: Make, topic: str, look: Look, dispatch: Callable[[Options], Dispatcher]
) -> None:
    given = options()
    send(given, topic, "late", 3600)  # first, for it takes its time to connect
    send(given, topic, "early", 3)
    send(given, topic, "kept", 3)
    revoked.revoke(given, ["early", "unknown"])
    dispatcher = dispatch(given)
    eventually(lambda: len(look.records(topic)) == 2)
    revoked.revoke(given, ["late"])  # while it runs; it stays where it is until its next hop
    arrived = {dict(r.headers)["id"]: dict(r.headers) for r in look.records(topic)}
    assert arrived[b"early"]["expires"].startswith(b"1970-01-01")
    assert "expires" not in arrived[b"kept"]
    # A transaction is counted, and in all its topics to be read, a moment after the first of its records.
    eventually(lambda: dispatcher.statistics.revoked == 1)
    known = revoked.RevokedIds(given)

    def in_topic() -> set[bytes]:
        known.load()
        return {name for name in (b"early", b"unknown", b"late") if name in known}

    eventually(lambda: in_topic() == {b"unknown", b"late"})
    known.close()


def test_more_revoked_ids_than_are_kept_drop_the_oldest(
    options: Make, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = options()
    revoked.revoke(given, [f"id-{number}" for number in range(30)])
    known = revoked.RevokedIds(given, max_ids=10)
    known.load()
    assert len(known) == 10
    assert b"id-29" in known
    assert "the oldest are forgotten" in caplog.text
    known.close()


def test_one_of_two_dispatchers_is_at_work_and_the_other_takes_over_when_it_stops(
    options: Make, topic: str, ledger: Ledger, dispatch: Callable[[Options], Dispatcher]
) -> None:
    given = options()
    first = dispatch(given)
    eventually(lambda: first.statistics.active)
    second = dispatch(given)
    for number in range(20):
        send(given, topic, str(number), 0.5 + 0.2 * number)
    eventually(lambda: first.statistics.forwarded > 5)
    assert not second.statistics.active
    first.join()
    eventually(lambda: second.statistics.active)
    ledger.wait(20)
    assert set(ledger.ids.values()) == {1}


def test_what_went_before_others_does_not_go_again_with_the_next_dispatcher(
    options: Make, topic: str, ledger: Ledger, dispatch: Callable[[Options], Dispatcher],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(delay_level, "HOLD_MS", 10_000_000)  # all that is read is held
    given = options()
    delay_topics.ensure(given)

    def place(name: str, seconds: float) -> None:
        headers = [("id", name.encode()), ("due", b"0")]
        headers += delay.describe(topic, None, in_ms(seconds))
        producer.shared(given).publish(f"{topic}-delay", b"", headers=headers, partition=0)

    for name, seconds in (("hour", 3600), ("first", 0), ("day", 7000), ("second", 0)):
        place(name, seconds)
    before = dispatch(given)
    ledger.wait(2)
    assert before.statistics.hops == 0
    before.join()
    place("third", 0)
    dispatch(given)
    ledger.wait(3)
    assert ledger.ids == Counter(["first", "second", "third"])


def test_many_go_in_one_transaction_and_none_goes_through_another_level(
    options: Make, topic: str, ledger: Ledger, dispatch: Callable[[Options], Dispatcher]
) -> None:
    given = options()
    delay_topics.ensure(given)
    for number in range(2000):
        headers = [("id", str(number).encode()), ("due", b"0")]
        headers += delay.describe(topic, None, in_ms(0))
        producer.shared(given).publish(
            f"{topic}-delay", b"", headers=headers, partition=number % 3, confirm=number >= 1997
        )
    done = dispatch(given).statistics
    ledger.wait(2000)
    assert set(ledger.ids.values()) == {1}
    # A transaction is counted a moment after its records can be read.
    eventually(lambda: done.forwarded == 2000)
    assert done.hops == 0
    assert 2000 / BATCH <= done.transactions <= 20


@pytest.mark.slow
def test_ten_kills_of_dispatchers_lose_nothing_and_double_nothing(
    options: Make, topic: str, kafka: LocalKafka, ledger: Ledger, tmp_path: Path
) -> None:
    given = options()
    delay_topics.ensure(given)
    arguments = json.dumps(
        {"group_id": topic, "delay_topic": given.delay_topic,
         "dead_letter_topic": given.dead_letter_topic}
    )  # fmt: skip
    command = [sys.executable, "-m", "tests.dispatching", kafka.url(), arguments]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, preexec_fn=processes.dies_with_parent()
        )

    running = [start(), start()]
    try:
        sent = 0
        for kill in range(10):
            # Some that are forwarded at the very moment of the kill, some that wait longer.
            for number in range(200):
                send(given, topic, str(sent), 0.5 + number % 100 * 0.05, confirm=number == 199)
                sent += 1
            pipes = [process.stdout for process in running if process.stdout]
            active, _, _ = select.select(pipes, [], [], 120)
            assert active, f"nobody took over after kill {kill}"
            ledger.look()
            victim = next(process for process in running if process.stdout in active)
            ledger.wait(min(sent, len(ledger.ids) + 1))
            victim.kill()
            victim.wait()
            victim.stdout.close()  # type: ignore[union-attr]
            running.remove(victim)
            running.append(start())
        ledger.wait(sent)
        for _ in range(10):
            ledger.look()
        assert len(ledger.ids) == sent
        assert set(ledger.ids.values()) == {1}
    finally:
        for process in running:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
        producer.close_all()


@pytest.mark.parametrize(
    ("partitions", "config", "sentence"),
    [
        (3, {}, "has 3 partitions and needs 26"),
        (26, {"cleanup.policy": "compact"}, "has cleanup.policy=compact, message.timestamp.type="),
        (26, {"message.timestamp.type": "LogAppendTime", "retention.ms": "86400000"},
         "has retention.ms=86400000, so that delayed messages would be lost"),
    ],
)  # fmt: skip
def test_a_delay_topic_that_can_t_work_is_refused_in_a_sentence(
    options: Make, kafka: LocalKafka, topic: str, partitions: int, config: dict[str, str],
    sentence: str,
) -> None:  # fmt: skip
    kafka.create_topic(f"{topic}-delay", partitions, config)
    with pytest.raises(ConfigurationError, match=sentence):
        send(options(), topic, "a", 60)


def test_the_topics_are_made_with_their_settings(options: Make, topic: str, admin: Any) -> None:
    given = options()
    delay_topics.ensure(given)
    names = [f"{topic}-delay", f"{topic}-delay_revoked"]
    answer = admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in names], config_filter="all"
    )["topic"]
    assert answer[names[0]]["message.timestamp.type"]["value"] == "LogAppendTime"
    assert answer[names[0]]["retention.ms"]["value"] == "-1"
    assert answer[names[1]]["retention.ms"]["value"] == str(91 * 86_400_000)
    assert "compact" in answer[names[1]]["cleanup.policy"]["value"]
