"""The command of the runbooks: it knows how each service wants to be asked, and says what is wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.metrics_access import Access
from scheduler.metrics_server import MetricsServer


def ask(script: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr.strip()


@pytest.fixture
def script(rendered: Path, tmp_path: Path) -> Path:
    """As on a host whose password is in a file of the test's."""
    (tmp_path / "password").write_text("a secret for scrapes\n")
    text = (rendered / "secured" / "metrics.py").read_text()
    for written, here in (
        ("https://secured:", "http://127.0.0.1:"),
        ("/etc/ssl/certs/ca.pem", ""),
        ("/etc/prometheus/access/password", str(tmp_path / "password")),
    ):
        assert written in text
        text = text.replace(written, here)
    script = tmp_path / "metrics"
    script.write_text(text)
    return script


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    access = Access(password="a secret for scrapes")
    server = MetricsServer(
        "127.0.0.1", 0, lambda: [b"up 1\n"], lambda: (False, {"kafka": False}), lambda: access
    )
    server.start()
    yield server
    server.stop()


def test_it_logs_in_and_shows_what_is_said(script: Path, server: MetricsServer) -> None:
    assert ask(script, f"{server.port}/metrics") == (0, "up 1\n", "")


def test_what_is_said_with_an_error_is_shown_too(script: Path, server: MetricsServer) -> None:
    code, said, error = ask(script, f"{server.port}/health")
    assert code == 1
    assert '"kafka": false' in said
    assert error.endswith("answers with status 503.")


def test_what_does_not_answer_is_told_in_a_sentence(
    script: Path, server: MetricsServer, tmp_path: Path
) -> None:
    server.stop()
    code, _, error = ask(script, f"{server.port}/metrics")
    assert (code, error.count("\n")) == (1, 0)
    assert "does not answer" in error
    assert "9808/health" in ask(script)[2]
    assert "9808/health" in ask(script, "http://elsewhere/")[2]


def test_a_host_in_the_clear_wants_neither(rendered: Path) -> None:
    text = (rendered / "clear" / "metrics.py").read_text()
    assert 'URL = "http://clear:"' in text
    assert 'PASSWORD_FILE = ""' in text
    assert 'AUTHORITY = ""' in text
