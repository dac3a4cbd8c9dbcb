"""The exporter on a broker that demands TLS and a password; how long its certificate is valid."""

from __future__ import annotations

import ssl
import time
from datetime import timedelta
from pathlib import Path

import pytest

from scheduler.exporter import slow
from scheduler.exporter.service import Exporter, ExporterConfig
from scheduler.local_broker import LocalKafka
from scheduler.metrics_access import Access
from scheduler.metrics_server import MetricsServer
from scheduler.settings import Settings
from tests.eventually import eventually
from tests.secure_kafka import PASSWORDS, Authority

from .conftest import health, scrape


def _server(certificate: Path) -> MetricsServer:
    def access() -> Access:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
        return Access(tls=tls)

    server = MetricsServer("127.0.0.1", 0, lambda: [b""], lambda: (True, {}), access)
    server.start()
    return server


def test_tls_and_sasl_as_a_worker_has_them(
    secure_broker: LocalKafka,
    authority: Authority,
    topic_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secure_broker.create_topic(topic_name, 2)
    word = tmp_path / "password"
    word.write_text(PASSWORDS["alice"])
    word.chmod(0o600)
    address = secure_broker.addresses("TLS")[0]
    settings = Settings.from_environ(
        {
            "CELERY_BROKER_URL": f"kafka://{address}//{topic_name}",
            "CELERY_BROKER_SECURITY_PROTOCOL": "SASL_SSL",
            "CELERY_BROKER_SASL_MECHANISM": "SCRAM-SHA-512",
            "CELERY_BROKER_USERNAME": "alice",
            "CELERY_BROKER_PASSWORD_FILE": str(word),
            "CELERY_BROKER_CA_FILE": str(authority.file),
        }
    )
    own = str(authority.file)
    here, there = (
        _server(authority.issue(name, valid=timedelta(days=2))) for name in ("here", "there")
    )
    config = ExporterConfig(
        settings,
        port=0,
        interval=0.5,
        certificate_files=(own,),
        certificate_servers=tuple(f"127.0.0.1:{each.port}" for each in (here, there)),
    )
    monkeypatch.setattr(slow, "CERTIFICATES_EVERY", 0.5)
    exporter = Exporter(config)
    exporter.start()
    try:
        port = exporter.server.port
        lag = "kafka_consumer_group_lag"
        eventually(lambda: scrape(port).value(lag, topic=topic_name, partition="1") == 0)
        eventually(lambda: health(port)[0] == 200)
        ends = "celery_exporter_certificate_expiry_timestamp_seconds"
        end = eventually(lambda: scrape(port).value(ends, server=address))
        # Valid for a day from when it was made, in this very session.
        assert time.time() < end < time.time() + 86400
        assert (scrape(port).value(ends, server=own) or 0) > time.time()

        # A server that is away keeps what it showed; another shows a new one.
        def until(server: MetricsServer) -> float | None:
            return scrape(port).value(ends, server=f"127.0.0.1:{server.port}")

        known = eventually(lambda: until(here))
        here.stop()
        authority.issue("there", valid=timedelta(days=7))
        eventually(lambda: (until(there) or 0) > time.time() + 6 * 86400)
        assert until(here) == known
    finally:
        exporter.stop()
        there.stop()
