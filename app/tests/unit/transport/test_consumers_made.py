"""Consumers are made, and polled, in one place: what is mended there is mended everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("call", "module"),
    [
        (" KafkaConsumer(", "kombu_kafka/clients/consumers.py"),
        (".poll(timeout_ms", None),
        ("client.poll(", "kombu_kafka/clients/fetching.py"),
    ],
)
def test_nobody_else_does_it(call: str, module: str | None) -> None:
    sources = [*(APP / "kombu_kafka").rglob("*.py"), *(APP / "scheduler").rglob("*.py")]
    found = {
        str(source.relative_to(APP))
        for source in sources
        if any(call in line for line in source.read_text().splitlines())
    }
    assert found <= {module}
