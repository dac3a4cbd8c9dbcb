"""Publishing through librdkafka: what only it can do wrong. (Tests of publishing run with it, too.)"""

from __future__ import annotations

import subprocess
import sys
import threading

from kafka import KafkaAdminClient

from kombu_kafka.errors import KombuKafkaError
from kombu_kafka.options import LIBRDKAFKA, Options
from kombu_kafka.publishing import producer
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .conftest import Connect, Look

#: Publishes in a parent and in its forked child, both of which end as programs do.
FORK = """
import os, sys
from kombu_kafka.options import Options
from kombu_kafka.publishing import producer

url, topic = sys.argv[1:]
options = Options.of(url, {"publisher_client": "librdkafka"})

def publish(who):
    producer.shared(options).publish(topic, who + b" confirmed", partition=0)
    producer.shared(options).publish(topic, who + b" unconfirmed", partition=0, confirm=False)

publish(b"parent")
pid = os.fork()
if pid == 0:
    publish(b"child")
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
publish(b"parent again")
"""

GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
from kombu_kafka.options import Options
from kombu_kafka.publishing import producer

producer.shared(Options.of(sys.argv[1], {"publisher_client": "librdkafka"}))
"""


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_a_forked_child_has_a_producer_of_its_own_and_ends(
    kafka: LocalKafka, look: Look, topic: str
) -> None:
    """What crossed the fork has no threads here: nothing would leave, and no wait would end."""
    done = _run(FORK, kafka.url(), topic)
    assert done.returncode == 0, done.stderr
    found = {record.value for record in look.records(topic)}
    who = (b"parent", b"child", b"parent again")
    assert found == {name + how for name in who for how in (b" confirmed", b" unconfirmed")}


def test_greenlets_are_refused(kafka: LocalKafka) -> None:
    done = _run(GREENLETS, kafka.url())
    assert "ConfigurationError: librdkafka does not work with greenlets (gevent)" in done.stderr


def test_many_threads_wait_at_once(connect: Connect, look: Look, topic: str) -> None:
    """Whoever fetches reports fetches those of the others."""
    faults: list[BaseException] = []

    def publish(number: int) -> None:
        try:
            publisher = connect(publisher_client=LIBRDKAFKA).Producer()
            for _ in range(50):
                publisher.publish(number, routing_key=topic)
        except BaseException as exc:  # noqa: BLE001 (the test looks at it)
            faults.append(exc)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert faults == []
    assert len(look.records(topic)) == 400


def test_nothing_is_nothing(kafka: LocalKafka, look: Look, topic: str) -> None:
    """A tombstone, an empty value, an empty key and a header without a value stay what they are."""
    client = producer.shared(Options.of(kafka.url(), {"publisher_client": LIBRDKAFKA}))
    headers = [("none", None), ("empty", b"")]
    client.publish(topic, None, key=b"k", headers=headers, partition=0)  # type: ignore[arg-type]
    client.publish(topic, b"", key=b"", partition=0)
    first, second = look.records(topic)
    assert (first.value, first.key, list(first.headers)) == (None, b"k", headers)
    assert (second.value, second.key, list(second.headers)) == (b"", b"", [])
    producer.close_all()


def test_a_topic_that_is_deleted_comes_back_with_the_next_message(
    kafka: LocalKafka, look: Look, topic: str, admin: KafkaAdminClient
) -> None:
    options = Options.of(kafka.url(), {"publisher_client": LIBRDKAFKA})
    client = producer.shared(options)
    client.publish(topic, b"before")
    producer.forget([topic])  # first: who asks for a topic that is gone brings it back
    admin.delete_topics([topic])
    eventually(lambda: topic not in admin.list_topics())
    client.publish(topic, b"after")
    assert [record.value for record in look.records(topic)] == [b"after"]
    producer.close_all()


def test_what_was_deleted_by_others_is_made_again(
    kafka: LocalKafka, look: Look, topic: str, admin: KafkaAdminClient
) -> None:
    """The message at hand fails, as librdkafka does not know better; the next has it made anew."""
    client = producer.shared(Options.of(kafka.url(), {"publisher_client": LIBRDKAFKA}))
    client.publish(topic, b"before")
    admin.delete_topics([topic])
    eventually(lambda: topic not in admin.list_topics())

    def published() -> bool:
        try:
            client.publish(topic, b"after")
        except KombuKafkaError:
            return False
        return True

    eventually(published, 180)
    assert b"after" in [record.value for record in look.records(topic)]
    producer.close_all()
