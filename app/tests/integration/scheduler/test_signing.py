"""Signed tasks: they run, they are retried signed, and as dead letters they still verify."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery.security.certificate import Certificate, FSCertStore
from celery.security.key import PrivateKey
from celery.security.serialization import SecureSerializer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from kafka import KafkaProducer

from kombu_kafka import topics
from kombu_kafka.options import Options
from tests.ledger import Ledger
from tests.malformed import BODY


@pytest.fixture
def signing(tmp_path: Path) -> dict[str, str]:
    """A key, its certificate, and a store that trusts it; as the environment names them."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "team")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            pem,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    (tmp_path / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    return {
        "CELERY_SIGNING_KEY_FILE": str(tmp_path / "key.pem"),
        "CELERY_SIGNING_CERT_FILE": str(tmp_path / "certificate.pem"),
        "CELERY_SIGNING_CERT_STORE": str(tmp_path / "cert*.pem"),
    }


def _serializer(signing: dict[str, str]) -> SecureSerializer:
    return SecureSerializer(
        key=PrivateKey(Path(signing["CELERY_SIGNING_KEY_FILE"]).read_text()),
        cert=Certificate(Path(signing["CELERY_SIGNING_CERT_FILE"]).read_text()),
        cert_store=FSCertStore(signing["CELERY_SIGNING_CERT_STORE"]),
    )


#: What a producer of the team's runs, with the environment that signs.
PRODUCER = """
from scheduler.app import app
for name, args in {tasks!r}:
    app.send_task(name, args, countdown=5)
"""


def test_signed_tasks(system: Any, tmp_path: Path, signing: dict[str, str]) -> None:
    """One runs, one is retried and gives up, one is late, one fails; an unsigned one is refused."""
    serializer = _serializer(signing)
    ledger = Ledger(tmp_path / "ledger")

    def send(name: str, *args: Any, **headers: bytes) -> None:
        signed = serializer.serialize([list(args), {}, {}])
        head = {"task": name.encode(), "id": name.encode(), "content-type": b"application/data",
                **headers}  # fmt: skip
        _raw(system, signed.encode(), head)

    send("tests.note")
    send("tests.retries")
    send("tests.fails", "no")
    _raw(system, BODY, {"task": b"tests.note", "id": b"unsigned"})
    signing["CELERY_DELAY_TOPIC"] = f"{system.topic}-delay"
    system.worker(0, 1, 2, 3, **signing).start()
    system.wait("letters", lambda: len(system.dead_letters()) == 3)
    system.wait_done()
    events = [line[0] for line in ledger.lines()]
    assert sorted(events) == ["fails", "note", "retries", "retries", "retries"]
    letters = {dict(letter.headers)["id"]: letter for letter in system.dead_letters()}
    later = _later(system, tmp_path, signing)
    assert later == ["fails_until", "fails_until", "fails_until", "note"]
    assert letters[b"unsigned"].value == BODY
    for name in (b"tests.fails", b"tests.retries"):
        args, _, _ = serializer.deserialize(letters[name].value)
        assert args == (["no"] if name == b"tests.fails" else [])


def _later(system: Any, tmp_path: Path, signing: dict[str, str]) -> list[str]:
    """Send signed tasks with an ETA: one runs; one is retried with another, dies, is replayed, and runs."""
    ledger, mended = Ledger(tmp_path / "ledger"), tmp_path / "mended"
    before, letters = len(ledger.lines()), len(system.dead_letters())
    delayed = f"{system.topic}-delay"
    environ = {
        **os.environ, **signing, "CELERY_BROKER_URL": system.kafka.url(system.topic),
        "CELERY_APP_MODULE": "tests.tasks", "CELERY_GROUP_ID": system.topic,
        "CELERY_DEAD_LETTER_TOPIC": system.dead_letter_topic, "CELERY_DELAY_TOPIC": delayed,
    }  # fmt: skip
    tasks = [("tests.note", []), ("tests.fails_until", [str(mended)])]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRODUCER.format(tasks=tasks)],
        env=environ, check=True, timeout=120,
    )  # fmt: skip
    system.wait("a letter", lambda: len(system.dead_letters()) == letters + 1, 120)
    # Both were delayed, and the retry as well, unless its worker took longer to publish it.
    forwarded = topics.lag(Options.of(system.kafka.url(), {"group_id": system.topic}), delayed)
    assert sum(end for _, end in forwarded.values()) >= len(tasks), "they were in the delay topic"
    mended.touch()
    replay = [str(Path(sys.executable).with_name("scheduler")), "dlq", "replay"]
    subprocess.run(
        [*replay, "--task", "tests.fails_until", "--yes"], env=environ, check=True, timeout=120
    )

    def ran() -> list[str]:
        return sorted(line[0] for line in ledger.lines()[before:])

    system.wait("the replayed one", lambda: len(ran()) == 4, 120)
    system.wait_done()
    assert len(system.dead_letters()) == letters + 1
    return ran()


def _raw(system: Any, value: bytes, headers: dict[str, bytes]) -> None:
    client = KafkaProducer(bootstrap_servers=system.kafka.bootstrap)
    try:
        client.send(system.topic, value=value, headers=list(headers.items())).get(timeout=20)
    finally:
        client.close()
