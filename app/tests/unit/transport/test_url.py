"""Broker URLs."""

from __future__ import annotations

import pytest

from kombu_kafka.errors import ConfigurationError
from kombu_kafka.url import mask_password, parse


def test_several_hosts_and_a_topic() -> None:
    url = parse("kafka://kafka1:9092,kafka2:9092,kafka3:9092//tasks")
    assert url.hosts == ("kafka1:9092", "kafka2:9092", "kafka3:9092")
    assert url.topic == "tasks"


@pytest.mark.parametrize(
    ("text", "hosts", "topic"),
    [
        ("kafka://a", ("a:9092",), None),
        ("kafka://a/", ("a:9092",), None),
        ("kafka://a:1,b//t?x=1", ("a:1", "b:9092"), "t"),
        ("kafka://[::1]:19092//t", ("[::1]:19092",), "t"),
        ("kafka://[::1]//t", ("[::1]:9092",), "t"),
    ],
)
def test_shapes(text: str, hosts: tuple[str, ...], topic: str | None) -> None:
    assert (parse(text).hosts, parse(text).topic) == (hosts, topic)


def test_credentials_are_taken_apart_and_not_shown() -> None:
    url = parse("kafka://me:p%40ss@a:1//t")
    assert (url.username, url.password) == ("me", "p@ss")
    assert "p@ss" not in repr(url)
    assert "me" not in repr(url)


def test_the_password_is_masked() -> None:
    assert mask_password("kafka://me:s3cret@a:1,b:2//t") == "kafka://me:**@a:1,b:2//t"
    assert mask_password("kafka://a:1//t") == "kafka://a:1//t"


@pytest.mark.parametrize(
    "text",
    ["", "a:9092", "amqp://a//", "kafka://", "kafka:///t", "kafka://a:x//t", "kafka://a:0//t",
     "kafka://a:70000//t", "kafka://:9092//t"],
)  # fmt: skip
def test_bad_urls_are_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(text)
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)


def test_a_refusal_does_not_show_the_password() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse("kafka://me:s3cret@a:x//t")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["kafka://me:s3/cret@a:1//t", "kafka://me:s3cret?@a:1//t", "kafka://me:s3@cr/et@a//t"],
)
def test_a_password_that_must_be_encoded(text: str) -> None:
    with pytest.raises(ConfigurationError, match="%2F") as refused:
        parse(text)
    assert "s3" not in str(refused.value)
    assert "cret" not in str(refused.value)


def test_each_url_of_several_is_masked() -> None:
    shown = mask_password("kafka://me:one@a//t?sasl_password=x&a=b;kafka://me:two@b//t")
    assert shown == "kafka://me:**@a//t?sasl_password=**&a=b;kafka://me:**@b//t"
