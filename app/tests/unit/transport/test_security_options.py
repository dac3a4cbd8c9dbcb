"""TLS and SASL: what may be said about them, and what follows from it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from kombu_kafka.clients.secret import MASK, Secret
from kombu_kafka.errors import ConfigurationError
from kombu_kafka.options import Options

URL = "kafka://a:9092//tasks"
LOGIN = {"sasl_username": "me", "sasl_password": "s3cret"}


@pytest.mark.parametrize(
    ("url", "given", "use_ssl", "protocol"),
    [
        (URL, {}, None, "PLAINTEXT"),
        (URL, {}, False, "PLAINTEXT"),
        (URL, {}, True, "SSL"),
        (URL, {}, {"cert_reqs": ssl.CERT_NONE}, "SSL"),
        (URL, {"ssl_cafile": "ca.pem"}, None, "SSL"),
        (URL, LOGIN, None, "SASL_PLAINTEXT"),
        (URL, LOGIN, True, "SASL_SSL"),
        ("kafka://me:pw@a//t", {"security_protocol": "sasl_ssl"}, None, "SASL_SSL"),
        ("kafka://me:pw@a//t?ssl_cafile=ca.pem", {}, None, "SASL_SSL"),
    ],
)
def test_the_protocol_follows_from_what_is_set(
    url: str, given: dict[str, Any], use_ssl: Any, protocol: str
) -> None:
    assert Options.of(url, given, use_ssl).security_protocol == protocol


@pytest.mark.parametrize(
    ("given", "use_ssl", "said"),
    [
        ({"security_protocol": "TLS"}, None, "unknown: use one of PLAINTEXT"),
        ({"security_protocol": "PLAINTEXT"}, True, "set it to SSL"),
        ({"security_protocol": "SSL", **LOGIN}, None, "set it to SASL_SSL"),
        ({"security_protocol": "SASL_SSL"}, None, "needs a user and a password"),
        ({"sasl_username": "me"}, None, "needs a user and a password"),
        ({"sasl_mechanism": "GSSAPI", **LOGIN}, None, "not supported: use one of SCRAM-SHA-512"),
        ({"ssl_check_hostname": "maybe"}, None, "must be true or false"),
        ({"ssl_cafile": 1}, None, "must be text"),
        ({"sasl_username": "me", "sasl_password": 4711}, None, "must be text, not int"),
        ({}, {"keyfiel": "x"}, "which this transport does not know"),
        ({}, {"cert_reqs": "sometimes"}, "cert_reqs can't be"),
    ],
)
def test_a_mistake_is_one_sentence(given: dict[str, Any], use_ssl: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        Options.of(URL, given, use_ssl)
    assert str(refused.value).endswith(".")
    assert "s3cret" not in str(refused.value)
    assert "4711" not in str(refused.value)


@pytest.mark.parametrize("content", [None, "", "two\nlines", "x" * 5000])
def test_a_password_file_that_is_none(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "word"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    options = Options.of(URL, {"sasl_username": "me", "sasl_password_file": str(file)})
    with pytest.raises(ConfigurationError, match="sasl_password_file"):
        options.client_settings()


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    options = Options.of(URL, {"ssl_cafile": str(tmp_path / "nowhere.pem")})
    with pytest.raises(ConfigurationError, match="No such file"):
        options.client_settings()
    (tmp_path / "empty.pem").write_text("no certificate")
    options = Options.of(URL, {"ssl_cafile": str(tmp_path / "empty.pem")})
    with pytest.raises(ConfigurationError, match="not PEM"):
        options.client_settings()


def test_options_are_keys_that_show_no_secret() -> None:
    options = Options.of(URL, {**LOGIN, "ssl_key_password": "key s3cret"}, True)
    assert {options: 1}[Options.of(URL, {**LOGIN, "ssl_key_password": "key s3cret"}, True)] == 1
    assert "s3cret" not in repr(options)
    assert options != Options.of(URL, {**LOGIN, "ssl_key_password": "another"}, True)


def test_a_secret_is_text_for_its_user_alone() -> None:
    secret = Secret("word")
    assert secret == "word"
    assert f"{[secret]} {secret!r}" == f"[{MASK}] {MASK}"
    assert secret.encode() == b"word"
