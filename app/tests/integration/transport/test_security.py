"""Brokers that demand to know their clients: who gets in, what the others are told, what is never shown."""

from __future__ import annotations

import json
import logging
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery
from kombu import Connection, Queue

from kombu_kafka import topics
from kombu_kafka.errors import AuthenticationError, ConfigurationError, PublishError
from kombu_kafka.options import Options
from kombu_kafka.publishing import producer
from scheduler.local_broker import LocalKafka
from tests.eventually import eventually
from tests.secure_kafka import PASSWORDS, Authority

from .conftest import CONNECT_SECONDS, Connect, each_client

#: Seconds in which a refusal must be told: it would be weather for 30 (`connect_timeout`).
FAST = 25
WRONG = "not-the-password-4711"

#: Makes the URL of a listener, with a user where one is named.
Url = Callable[..., str]


@pytest.fixture
def url(secure_broker: LocalKafka) -> Url:
    def make(listener: str, user: str | None = None, password: str | None = None) -> str:
        who = ""
        if user is not None:
            who = f"{quote(user, safe='')}:{quote(password or PASSWORDS[user], safe='')}@"
        return f"kafka://{who}{secure_broker.addresses(listener)[0]}//tasks"

    return make


@pytest.fixture
def secure_topic(secure_broker: LocalKafka, topic_name: str) -> str:
    secure_broker.create_topic(topic_name, 2)
    return topic_name


def _there_and_back(connection: Connection, topic: str) -> None:
    """Publish, ask, and consume: every kind of client."""
    connection.Producer().publish({"n": 1}, routing_key=topic, partition=1)
    assert topics.partition_count(connection.transport.options, topic) == 2
    got: list[Any] = []
    with connection.Consumer(
        [Queue(topic, routing_key=topic)], callbacks=[lambda body, message: got.append(body)]
    ):
        connection.drain_events(timeout=60)
    assert got == [{"n": 1}]


@each_client
def test_mutual_tls_as_celery_names_it(
    connect: Connect, url: Url, secure_topic: str, authority: Authority
) -> None:
    keys = {"ca_certs": str(authority.file), "certfile": str(authority.directory / "client.pem")}
    _there_and_back(connect(url("MUTUAL"), ssl=keys, partitions=[1]), secure_topic)


@each_client
def test_mutual_tls_with_a_key_of_its_own_password(
    connect: Connect, url: Url, secure_topic: str, authority: Authority, tmp_path: Path
) -> None:
    key = authority.issue("client-locked", password=b"key word")
    word = tmp_path / "word"
    word.write_text("key word\n")
    word.chmod(0o600)
    options = {"ssl_cafile": str(authority.file), "ssl_certfile": str(key)}
    connection = connect(url("MUTUAL"), ssl_key_password_file=str(word), **options)
    with pytest.raises(PublishError, match="may not write"):  # so it is let in
        connection.Producer().publish("x", routing_key=secure_topic)
    with pytest.raises(ConfigurationError, match=r"can't be used: .*password is wrong"):
        connect(url("MUTUAL"), **options).connect()


@each_client
@pytest.mark.parametrize("listener", ["TLS", "CLEAR"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", None])
def test_sasl(
    connect: Connect, url: Url, secure_topic: str, authority: Authority, listener: str,
    mechanism: str | None,
) -> None:  # fmt: skip
    options: dict[str, Any] = {"sasl_mechanism": mechanism, "partitions": [1]}
    if listener == "TLS":
        options["ssl"] = {"ssl_ca_certs": str(authority.file), "ssl_cert_reqs": "required"}
    _there_and_back(connect(url(listener, "alice"), **options), secure_topic)


@each_client
def test_a_user_in_options_with_the_password_in_a_file(
    connect: Connect, url: Url, secure_topic: str, tmp_path: Path
) -> None:
    word = tmp_path / "word"
    word.write_text(PASSWORDS["alice"] + "\n")
    word.chmod(0o640)
    options = {"sasl_username": "alice", "sasl_password_file": str(word), "partitions": [1]}
    _there_and_back(connect(url("CLEAR"), **options), secure_topic)
    word.chmod(0o644)
    with pytest.raises(ConfigurationError, match="Everyone may read"):
        Options.of(url("CLEAR"), options).client_settings()


@each_client
def test_a_user_whose_name_scram_must_escape(connect: Connect, url: Url, secure_topic: str) -> None:
    with pytest.raises(PublishError, match="may not write"):  # so it is let in
        connect(url("CLEAR", "team=a,b")).Producer().publish("x", routing_key=secure_topic)


#: Name of the mistake: listener, user, password, broker_use_ssl, options, what is said.
MISTAKES: dict[str, tuple[str, str | None, str | None, Any, dict[str, Any], str]] = {
    "wrong password, SCRAM": ("CLEAR", "alice", WRONG, None, {}, "refuses the user 'alice'"),
    "wrong password, PLAIN": (
        "CLEAR", "alice", WRONG, None, {"sasl_mechanism": "PLAIN"}, "refuses the user 'alice'",
    ),
    "wrong password, TLS": ("TLS", "alice", WRONG, "ca", {}, "refuses the user 'alice'"),
    "unknown user": ("CLEAR", "mallory", WRONG, None, {}, "refuses the user 'mallory'"),
    "no user": ("CLEAR", None, None, None, {}, "asks for a user"),
    "no user, TLS": ("TLS", None, None, "ca", {}, "asks for a user"),
    "untrusted certificate": ("TLS", "alice", None, True, {}, "not trusted .*: set ssl_cafile"),
    "another's certificate": ("OTHER", None, None, "ca", {}, "not trusted .*ostname mismatch"),
    "no client certificate": ("MUTUAL", None, None, "ca", {}, "refuses the TLS connection"),
    "plain client on TLS": ("MUTUAL", None, None, None, {}, "speaks TLS, and this client does not"),
    "TLS client on plain": ("CLEAR", "alice", None, True, {}, "does not speak TLS"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_who_is_not_let_in_is_told_at_once(
    connect: Connect, url: Url, authority: Authority, mistake: str, caplog: Any
) -> None:
    """Producer, admin and consumer alike, and the password is in no log."""
    listener, user, password, ssl, options, said = MISTAKES[mistake]
    ssl = {"ca_certs": str(authority.file)} if ssl == "ca" else ssl
    address = url(listener, user, password)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="kafka")
    began = time.monotonic()
    with pytest.raises(AuthenticationError, match=said):
        connect(address, ssl=ssl, connect_timeout=30, **options).Producer().publish(
            {}, routing_key="tasks", retry=True
        )
    made = Options.of(address, {"connect_timeout": 30, "partitions": [0], **options}, ssl)
    with pytest.raises(AuthenticationError, match=said):
        topics.partition_counts(made)
    # The consumer's thread on its own, as after credentials were revoked.
    connection = connect(address, ssl=ssl, connect_timeout=30, partitions=[0], **options)
    consumer = connection.transport.consumer
    consumer.consume("tasks")
    error = eventually(lambda: consumer.error, FAST)
    assert isinstance(error, AuthenticationError), error
    assert time.monotonic() - began < FAST
    assert (password or PASSWORDS.get(user or "", WRONG)) not in caplog.text


def test_brokers_that_do_not_answer_are_weather(connect: Connect) -> None:
    made = Options.of("kafka://alice:x@127.0.0.1:1//tasks", {"connect_timeout": 1})
    with pytest.raises(Exception, match=r"answered within 1 seconds"):
        producer.shared(made)


def test_one_broker_that_lets_us_in_is_enough(
    connect: Connect, url: Url, secure_broker: LocalKafka
) -> None:
    address = url("CLEAR", "alice").replace("@", f"@127.0.0.1:1,{secure_broker.bootstrap[0]},")
    made = Options.of(address)
    topics.partition_counts(made)


@each_client
def test_the_password_is_nowhere(
    connect: Connect, url: Url, caplog: Any, capfd: Any, secure_topic: str, publisher_client: str
) -> None:
    word = PASSWORDS["alice"]
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="kafka")
    address = url("CLEAR", "alice")
    both = f"{address};{address}"
    options = {
        "sasl_mechanism": "PLAIN", "connect_timeout": CONNECT_SECONDS, "publisher_client": publisher_client,
    }  # fmt: skip
    with Connection(both, transport_options={**options, "sasl_password": word}) as connection:
        made = connection.transport.options
        topics.partition_counts(made)
        connection.Producer().publish("x", routing_key=secure_topic)
        shown = [
            connection.as_uri(),
            repr(connection),
            json.dumps(connection.info(), default=repr),
            repr(made),
            str(made.client_settings()),
            json.dumps(connection.clone().info(), default=repr),
        ]
        copy = pickle.loads(pickle.dumps(connection))
        assert copy.transport.options == made, "a copy is for use"
        assert connection.clone().transport.options == made
    app = Celery("report", broker=both)
    app.conf.broker_transport_options = {**options, "sasl_password": word}
    app.conf.broker_use_ssl = False
    shown += [app.bugreport(), json.dumps(app.conf.table(), default=repr), caplog.text]
    shown += capfd.readouterr()
    for text in shown:
        assert word not in text
        assert quote(word, safe="") not in text
    assert "SaslAuthenticate" not in caplog.text, "PLAIN's request holds the password"
    assert "(SASL)" in caplog.text, "the log must have seen a login"
    producer.close_all()


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    producer.close_all()
