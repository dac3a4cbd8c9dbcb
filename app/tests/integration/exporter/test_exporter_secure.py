"""The exporter on a broker that demands TLS and a password; how long its certificate is valid."""

from __future__ import annotations

import time
from pathlib import Path

from scheduler.exporter.service import Exporter, ExporterConfig
from scheduler.local_broker import LocalKafka
from scheduler.settings import Settings
from tests.eventually import eventually
from tests.secure_kafka import PASSWORDS, Authority

from .conftest import health, scrape


def test_tls_and_sasl_as_a_worker_has_them(
    secure_broker: LocalKafka, authority: Authority, topic_name: str, tmp_path: Path
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
    config = ExporterConfig(settings, port=0, interval=0.5, certificate_files=(own,))
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
    finally:
        exporter.stop()
