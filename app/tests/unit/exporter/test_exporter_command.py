"""`scheduler exporter`: what can't work is refused with a sentence."""

from __future__ import annotations

import socket

import pytest
from click.testing import CliRunner

from scheduler.cli import main

RUN = ("exporter", "--kafka-broker", "127.0.0.1:1")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, [*RUN, "--port", port])
    assert result.exit_code == 2
    assert f"127.0.0.1:{port} can't be listened on" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["exporter"], "CELERY_BROKER_URL is not set"),
        (["exporter", "--kafka-broker", "kafka1:port"], "is not host:port"),
        (["exporter", "--broker-url", "redis://x"], "does not start with kafka://"),
        ([*RUN, "--certificates-of", "a:1,b"], "'b' is not host:port"),
    ],
)
def test_brokers_that_are_none_are_told(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
