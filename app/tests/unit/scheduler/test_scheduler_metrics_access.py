"""Metrics over HTTP: who may read them, and over what."""

from __future__ import annotations

import base64
import http.client
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.metrics_access import Access, AccessError, CurrentAccess
from scheduler.metrics_server import MetricsServer


def self_signed(directory: Path) -> tuple[Path, Path]:
    paths = directory / "tls.crt", directory / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-out", paths[0], "-keyout", paths[1], "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    return paths


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return self_signed(tmp_path)


@pytest.fixture
def environ(certificate: tuple[Path, Path], tmp_path: Path) -> dict[str, str]:
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    return {
        "CELERY_METRICS_PASSWORD_FILE": str(password),
        "CELERY_METRICS_TLS_CERTIFICATE": str(certificate[0]),
        "CELERY_METRICS_TLS_KEY": str(certificate[1]),
    }


@pytest.fixture
def server(environ: dict[str, str]) -> Iterator[MetricsServer]:
    server = MetricsServer(
        "127.0.0.1", 0, lambda: [b"up 1\n"], lambda: (True, {}), CurrentAccess(environ)
    )
    server.start()
    yield server
    server.stop()


def ask(
    server: MetricsServer, trusted: Path, credentials: str | None, scheme: str = "https"
) -> str:
    request = urllib.request.Request(f"{scheme}://localhost:{server.port}/metrics")
    if credentials is not None:
        encoded = base64.b64encode(credentials.encode()).decode()
        request.add_header("Authorization", f"Basic {encoded}")
    context = ssl.create_default_context(cafile=trusted)
    with urllib.request.urlopen(request, timeout=60, context=context) as answer:
        return str(answer.read().decode())


def test_the_password_opens_and_nothing_else_does(
    server: MetricsServer, certificate: tuple[Path, Path]
) -> None:
    assert ask(server, certificate[0], "prometheus:s3cret") == "up 1\n"
    for wrong in (None, "prometheus:S3cret", "other:s3cret", "prometheus:", "ü:ü"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(server, certificate[0], wrong)
        assert caught.value.code == 401
        caught.value.close()


def test_a_plain_client_gets_nothing_and_stops_nobody(
    server: MetricsServer, certificate: tuple[Path, Path]
) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(server, certificate[0], "prometheus:s3cret", scheme="http")
    assert ask(server, certificate[0], "prometheus:s3cret") == "up 1\n"


def test_what_is_renewed_counts_from_the_next_connection_on(
    server: MetricsServer, certificate: tuple[Path, Path], environ: dict[str, str], tmp_path: Path
) -> None:
    before = tmp_path / "before.crt"
    before.write_bytes(certificate[0].read_bytes())
    renewed = tmp_path / "renewed"
    renewed.mkdir()
    new = self_signed(renewed)
    certificate[0].write_bytes(new[0].read_bytes())  # the key is yet to come: nothing changes
    assert ask(server, before, "prometheus:s3cret") == "up 1\n"
    certificate[1].write_bytes(new[1].read_bytes())
    Path(environ["CELERY_METRICS_PASSWORD_FILE"]).write_text("an0ther")
    assert ask(server, new[0], "prometheus:an0ther") == "up 1\n"
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(server, new[0], "prometheus:s3cret")
    caught.value.close()


def test_nothing_set_asks_for_nothing() -> None:
    access = Access.from_environ({})
    assert access.tls is None
    assert access.admits(None)


def test_a_password_is_never_shown(environ: dict[str, str]) -> None:
    assert "s3cret" not in repr(Access.from_environ(environ))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"CELERY_METRICS_PASSWORD_FILE": "/nowhere"}, "PASSWORD_FILE can't be read"),
        ({"CELERY_METRICS_PASSWORD_FILE": "/dev/null"}, "/dev/null is empty"),
        ({"CELERY_METRICS_TLS_KEY": ""}, "belong together"),
        ({"CELERY_METRICS_TLS_CERTIFICATE": "/dev/null"}, "can't be used with its key"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(
    environ: dict[str, str], changes: dict[str, str], sentence: str
) -> None:
    with pytest.raises(AccessError, match=sentence):
        Access.from_environ(environ | changes)
