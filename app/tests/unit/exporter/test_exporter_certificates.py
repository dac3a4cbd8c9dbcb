"""Until when certificates are valid: every server that shows one, each worker's own files."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scheduler import worker_metrics
from scheduler.exporter import certificates
from scheduler.exporter.certificates import of_servers
from scheduler.metrics_access import Access
from scheduler.metrics_server import MetricsServer
from scheduler.processes import free_port
from tests.secure_kafka import Authority

DAY = 86400
NAME = "kombu_kafka_certificate_expiry_timestamp_seconds"


@contextmanager
def served(certificate: Path | None) -> Iterator[str]:
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    server = MetricsServer(
        "127.0.0.1", 0, lambda: [b""], lambda: (True, {}), lambda: Access(tls=tls)
    )
    server.start()
    yield f"127.0.0.1:{server.port}"
    server.stop()


def test_each_server_is_told_whatever_its_certificate_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "CONNECT_SECONDS", 60.0)
    authority = Authority(tmp_path)
    fresh = authority.issue("fresh", valid=timedelta(days=90))
    expired = authority.issue("expired", valid=timedelta(minutes=-1))
    with served(fresh) as one, served(expired) as other, served(None) as plain:
        gone = f"127.0.0.1:{free_port()}"
        ends = of_servers([one, other, plain, gone])
    assert set(ends) == {one, other}
    now = time.time()
    assert 89 * DAY < ends[one] - now <= 90 * DAY
    assert -120 < ends[other] - now < 0


def test_a_worker_tells_of_its_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    client = authority.issue("client", valid=timedelta(days=3))
    metrics = authority.issue("metrics", valid=timedelta(days=5))
    transport = SimpleNamespace(dispatcher=None, options=SimpleNamespace(ssl_certfile=str(client)))
    worker = SimpleNamespace(
        consumer=SimpleNamespace(connection=SimpleNamespace(_transport=transport))
    )
    monkeypatch.setenv("CELERY_METRICS_TLS_CERTIFICATE", str(metrics))

    def told() -> dict[str, int]:
        page = b"".join(worker_metrics.render(worker)).decode()
        return {
            sample.labels["file"]: round((sample.value - time.time()) / DAY)
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == NAME
        }

    assert told() == {str(client): 3, str(metrics): 5}
    client.unlink()
    assert told() == {str(metrics): 5}
