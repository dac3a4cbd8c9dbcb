"""Which client publishes, and what librdkafka is told."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import pytest
from kafka.errors import KafkaConfigurationError, KafkaTimeoutError

from kombu_kafka.clients.librdkafka import settings
from kombu_kafka.errors import ConfigurationError
from kombu_kafka.options import Options
from kombu_kafka.publishing import librdkafka, producer
from tests.secure_kafka import Authority

URL = "kafka://127.0.0.1:1//tasks"


def test_kafka_python_unless_told_otherwise() -> None:
    assert Options.of(URL).publisher_client == "kafka-python"
    assert Options.of(f"{URL}?publisher_client=librdkafka").publisher_client == "librdkafka"


def test_another_client_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'rdkafka' is unknown: use one of kafka-python"):
        Options.of(URL, {"publisher_client": "rdkafka"})


def test_a_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "kombu_kafka.publishing.librdkafka")
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'kombu-kafka\[librdkafka\]'"):
        producer.shared(Options.of(URL, {"publisher_client": "librdkafka"}))


def test_security_in_the_words_of_librdkafka(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    key = authority.issue("client", password=b"key word")
    options = Options.of(
        "kafka://us=er:pass%2Cword@a:1,b:2//t",
        {"ssl_certfile": str(key), "ssl_key_password": "key word", "sasl_mechanism": "PLAIN"},
        {"ca_certs": str(authority.file)},
    )
    told = settings(options)
    log = told.pop("logger")
    assert told == {
        "bootstrap.servers": "a:1,b:2",
        "client.id": "kombu-kafka",
        "reconnect.backoff.max.ms": 1000,
        "log.connection.close": False,
        "security.protocol": "SASL_SSL",
        "enable.ssl.certificate.verification": True,
        "ssl.endpoint.identification.algorithm": "https",
        "ssl.ca.location": str(authority.file),
        "ssl.certificate.location": str(key),
        "ssl.key.location": str(key),
        "ssl.key.password": "key word",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "us=er",
        "sasl.password": "pass,word",
    }
    assert "key word" not in repr(told)
    assert "pass,word" not in repr(told)
    assert log is not None


def test_the_hosts_name_is_checked_unless_told_otherwise() -> None:
    checked = Options.of(URL, use_ssl=True)
    unchecked = Options.of(URL, {"ssl_check_hostname": False}, use_ssl=True)
    name = "ssl.endpoint.identification.algorithm"
    assert (settings(checked)[name], settings(unchecked)[name]) == ("https", "none")
    blind = settings(Options.of(URL, {"ssl_verify": False}, use_ssl=True))
    assert (blind[name], blind["enable.ssl.certificate.verification"]) == ("none", False)


def test_passwords_are_taken_out_of_its_log(caplog: pytest.LogCaptureFixture) -> None:
    options = Options.of("kafka://user:s3cret-word@a:1//t")
    with caplog.at_level(logging.DEBUG):
        settings(options)["logger"].log(logging.INFO, "%s [%s] %s", "FAIL", "x", "s3cret-word is")
    assert caplog.messages == ["FAIL [x] ** is"]


def test_its_log_is_pythons_and_a_message_is_given_up_in_time(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    line = librdkafka._Line({**settings(Options.of(URL)), "delivery.timeout.ms": 300})
    report = librdkafka._Report(line)
    line.client.produce("t", b"x", callback=report)
    began = time.monotonic()
    with caplog.at_level(logging.DEBUG), pytest.raises(KafkaTimeoutError, match="timed out"):
        report.get(60)
    assert time.monotonic() - began < 30
    assert "127.0.0.1:1" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_what_is_not_sent_when_it_closes_has_failed() -> None:
    line = librdkafka._Line(settings(Options.of(URL)))
    report = librdkafka._Report(line)
    line.client.produce("t", b"x", callback=report)
    with pytest.raises(KafkaTimeoutError, match="no confirmation within"):
        report.get(0.01)
    line.close(0.01)
    assert report.done


def test_where_too_many_wait_the_next_waits_for_room() -> None:
    def line(milliseconds: int) -> librdkafka._Line:
        """One that gives each message up after so long."""
        few = {"delivery.timeout.ms": milliseconds, "queue.buffering.max.messages": 2}
        return librdkafka._Line({**settings(Options.of(URL)), **few})

    client = object.__new__(librdkafka.LibRdKafka)
    client._options, client._line, client._taken = Options.of(URL), line(200), 0
    client._topics = {"t": (1, time.monotonic())}
    reports = [client.send("t", b"x", key=None, headers=[], partition=0) for _ in range(5)]
    assert [report.done for report in reports][:3] == [True] * 3
    client._line.close(0.01)
    client._options, client._line = Options.of(URL, {"publish_timeout": 0.01}), line(600_000)
    with pytest.raises(KafkaTimeoutError, match="too many messages wait"):
        [client.send("t", b"x", key=None, headers=[], partition=0) for _ in range(3)]
    client._line.close(0.01)


def test_a_setting_that_cant_be() -> None:
    with pytest.raises(KafkaConfigurationError, match=r"timeout\.ms"):
        librdkafka._Line({"delivery.timeout.ms": -5})
