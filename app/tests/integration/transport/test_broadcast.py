"""Exchanges: fanout, topic and direct, with queues that go with their consumer."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from kombu.common import Broadcast
from kombu.pidbox import Mailbox

from kombu_kafka.errors import ConfigurationError, PublishError
from kombu_kafka.publishing import producer
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

from .conftest import CONNECT_SECONDS, Connect, Look, each_client


class Listener:
    """Consumes queues over a connection, keeping the bodies."""

    def __init__(self, connection: Connection, *queues: Queue, **kwargs: Any) -> None:
        self.connection = connection
        self.messages: list[Any] = []
        self.consumer = Consumer(
            connection.channel(), queues=list(queues), on_message=self.messages.append,
            **{"no_ack": True, **kwargs},
        )  # fmt: skip
        self.consumer.consume()

    def hear(self, count: int = 1, timeout: float = 60) -> list[Any]:
        """Return the bodies of the next messages."""
        del self.messages[:]
        while len(self.messages) < count:
            self.connection.drain_events(timeout=timeout)
        return [message.payload for message in self.messages]

    def silent(self) -> bool:
        """Whether nothing comes, for as long as a fetch takes."""
        with pytest.raises(TimeoutError):
            self.connection.drain_events(timeout=0.7)
        return True


def _exchange(name: str, kind: str, **kwargs: Any) -> Exchange:
    return Exchange(name, kind, **kwargs)


def _queue(name: str, exchange: Exchange, key: str = "") -> Queue:
    return Queue(f"{exchange.name}.{name}", exchange, routing_key=key, auto_delete=True)


def _say(connection: Connection, exchange: Exchange, *keys: str, **kwargs: Any) -> None:
    with connection.Producer() as out:
        for key in keys:
            out.publish(key, exchange=exchange, routing_key=key, declare=[exchange], **kwargs)


def test_fanout_reaches_every_queue(connect: Connect, topic_name: str) -> None:
    exchange = _exchange(topic_name, "fanout")
    one = Listener(connect(), _queue("one", exchange))
    two = Listener(connect(), _queue("two", exchange))
    _say(connect(), exchange, "a", "b")
    assert one.hear(2) == two.hear(2) == ["a", "b"]


def test_a_queue_gets_what_was_published_after_it_was_declared(
    connect: Connect, look: Look, topic_name: str
) -> None:
    exchange = _exchange(topic_name, "fanout")
    listening = connect()
    _say(connect(), exchange, "before", delivery_mode=1)
    eventually(lambda: look.records(f"{topic_name}.exchange"))  # nobody waited for that
    queue = _queue("one", exchange)(listening.channel())
    queue.declare()
    _say(connect(), exchange, "after", delivery_mode=1)
    assert Listener(listening, queue).hear() == ["after"]


def test_topic_exchanges_filter_and_read_only_their_word(
    connect: Connect, look: Look, topic_name: str
) -> None:
    exchange = _exchange(topic_name, "topic")
    workers = Listener(connect(), _queue("workers", exchange, "worker.#"))
    failed = Listener(connect(), _queue("failed", exchange, "*.failed"))
    everything = Listener(connect(), _queue("all", exchange, "#"))
    keys = ["worker.online", "task.failed", "worker", "task.sent"]
    _say(connect(), exchange, *keys)
    assert workers.hear(2) == ["worker.online", "worker"]
    assert failed.hear(1) == ["task.failed"]
    assert sorted(everything.hear(4)) == sorted(keys)
    assert workers.messages[0].delivery_info["exchange"] == topic_name
    assert workers.messages[0].delivery_info["routing_key"] == "worker.online"
    lie = {dict(r.headers)["amqp-routing_key"].split(b".")[0]: r.partition
           for r in look.records(f"{topic_name}.exchange")}  # fmt: skip
    assert len(set(lie.values())) == 2
    (queue,) = (q for n, q in workers.connection.transport.transients._queues.items()
                if n.startswith(f"{topic_name}.workers"))  # fmt: skip
    assert {tp.partition for tp in queue.positions} == {lie[b"worker"]}


def test_direct_exchanges_route_by_the_whole_key(connect: Connect, topic_name: str) -> None:
    exchange = _exchange(topic_name, "direct")
    red = Listener(connect(), _queue("red", exchange, "red"))
    _say(connect(), exchange, "blue", "red.blue", "red")
    assert red.hear() == ["red"]
    assert red.silent()


def test_a_message_nobody_is_bound_for_is_dropped_but_a_lasting_one_is_not(
    connect: Connect, topic_name: str
) -> None:
    for kind in ("direct", "topic", "fanout"):
        exchange = _exchange(f"{topic_name}-{kind}", kind)
        with pytest.raises(PublishError, match="would vanish"):
            _say(connect(), exchange, "lost")
        _say(connect(), exchange, "dropped", delivery_mode=1)


#: Declares a queue: the broker's URL, the exchange's name, the queue's.
DECLARE = """
import sys
import kombu_kafka
from kombu import Connection, Exchange, Queue
url, exchange, name = sys.argv[1:]
with Connection(url) as connection:
    Queue(name, Exchange(exchange, type="topic"), "#")(connection.channel()).declare()
"""


def test_durable_queues_bound_elsewhere_get_their_messages(
    connect: Connect, look: Look, kafka: LocalKafka, topic_name: str
) -> None:
    exchange = _exchange(topic_name, "topic")
    orders, mail = f"{topic_name}-orders", f"{topic_name}-mail"
    for name in (orders, mail):
        kafka.create_topic(name)
    publishing = connect()
    with pytest.raises(PublishError):
        _say(publishing, exchange, "order.new")
    Queue(orders, exchange, "order.#")(connect().channel()).declare()
    _say(publishing, exchange, "order.new")
    elsewhere = [sys.executable, "-c", DECLARE, kafka.url(), exchange.name, mail]
    subprocess.run(elsewhere, check=True, timeout=120)
    _say(publishing, exchange, "order.paid", "mail.sent")
    assert [r.value for r in look.records(orders)] == [b"order.new", b"order.paid"]
    assert [r.value for r in look.records(mail)] == [b"order.paid", b"mail.sent"]
    unbinding = connect().channel()
    queue = Queue(orders, exchange, "order.#")(unbinding)
    queue.exchange.declare()
    queue.unbind_from(exchange, "order.#")
    _say(publishing, exchange, "order.gone")
    assert len(look.records(orders)) == 2


def test_a_reply_finds_the_queue_named_by_a_uuid(connect: Connect) -> None:
    """As Celery does with rpc:// results: declared here, consumed there, sent from elsewhere."""
    name = "9f0c6f9e-8f4a-4b0e-8d1b-3a3f0a5c2d11"
    queue = Queue(name, Exchange(""), name, auto_delete=True)
    queue(connect().channel()).declare()
    connect().Producer().publish("42", exchange="", routing_key=name, delivery_mode=1)
    listener = Listener(connect(), queue, auto_declare=False)
    assert listener.hear() == ["42"]


def test_a_name_given_by_the_broker_is_a_reply_queue(connect: Connect) -> None:
    channel = connect().channel()
    name = channel.queue_declare("", exclusive=True, auto_delete=True).queue
    connect().Producer().publish("hi", exchange="", routing_key=name)
    assert eventually(lambda: channel.basic_get(name, no_ack=True)).payload == "hi"
    assert channel.basic_get(name) is None


def test_a_durable_queue_may_not_look_like_one_for_replies(connect: Connect) -> None:
    queue = Queue("9f0c6f9e-8f4a-4b0e-8d1b-3a3f0a5c2d12", Exchange(""))
    with pytest.raises(ConfigurationError, match="goes with its consumer"):
        queue(connect().channel()).declare()


def test_a_queue_that_is_cancelled_leaves_nothing_behind(
    connect: Connect, topic_name: str, admin: Any
) -> None:
    exchange = _exchange(topic_name, "fanout")
    listener = Listener(connect(), _queue("one", exchange))
    queues = listener.connection.transport.transients._queues
    assert f"{topic_name}.one" in queues
    listener.consumer.cancel()
    assert f"{topic_name}.one" not in queues
    assert [name for name in admin.list_topics() if name.startswith(topic_name)] == [
        f"{topic_name}.exchange"
    ]


def test_an_exchanges_topic_forgets_soon(connect: Connect, topic_name: str, admin: Any) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType

    Listener(connect(exchange_retention=120), _queue("one", _exchange(topic_name, "topic")))
    resource = ConfigResource(ConfigResourceType.TOPIC, f"{topic_name}.exchange")
    text = str(admin.describe_configs([resource]))
    assert "120000" in text


def test_unacknowledged_messages_come_again_and_a_channel_limit_does_not_hold_them(
    connect: Connect, topic_name: str
) -> None:
    exchange = _exchange(topic_name, "fanout")
    listener = Listener(
        connect(), Broadcast(topic_name, exchange=exchange), no_ack=False, prefetch_count=1
    )
    _say(connect(), exchange, "a", "b")
    assert listener.hear(2) == ["a", "b"]
    first = listener.messages[0]
    first.requeue()
    assert listener.hear(1) == ["a"]
    assert listener.messages[0].delivery_info["redelivered"]
    listener.messages[0].ack()


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "kombu-kafka-subscriber"]


def _fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_connections_that_ask_and_close_leave_no_threads_and_no_descriptors(
    connect: Connect, kafka: LocalKafka
) -> None:
    def ask() -> None:
        options = {"connect_timeout": CONNECT_SECONDS}
        with Connection(kafka.url(), transport_options=options) as connection:
            mailbox = Mailbox("leak", type="fanout")(connection)
            assert mailbox._broadcast("ping", reply=True, timeout=0.01) == []

    ask()
    readers, threads, fds = len(_threads()), threading.active_count(), _fds()
    for _ in range(50):
        ask()
    eventually(lambda: threading.active_count() <= threads)
    # Kafka's client leaves sockets to the collector.
    eventually(lambda: gc.collect() >= 0 and _fds() <= fds + 2)
    eventually(lambda: len(_threads()) <= readers)


@each_client
def test_a_forked_child_publishes_and_leaves_its_parents_reader_alone(
    connect: Connect, topic_name: str, publisher_client: str
) -> None:
    exchange = _exchange(topic_name, "fanout")
    listener = Listener(connect(), _queue("one", exchange))
    _say(listener.connection, exchange, "parent")
    assert listener.hear() == ["parent"]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            url = listener.connection.as_uri(include_password=True)
            options = {"connect_timeout": CONNECT_SECONDS, "publisher_client": publisher_client}
            with Connection(url, transport_options=options) as connection:
                _say(connection, exchange, "child")
            listener.connection.release()
            producer.close_all()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert listener.hear() == ["child"]
    _say(listener.connection, exchange, "again")
    assert listener.hear() == ["again"]
