"""Replaying on a real broker: each letter once, whoever dies, and whoever else is at it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scheduler.dlq.desk import Deed, Desk, FencedError
from scheduler.dlq.history import Act
from scheduler.dlq.letters import LetterId
from scheduler.dlq.reader import Reader
from scheduler.dlq.replay import Order, replay

#: Letters for kills; more than twice as many as a replay has steps.
LETTERS = 60


def _replayed(letters: Any) -> Counter[str]:
    """How often each letter's record lies in its topic."""
    return Counter(
        dict(record.headers)["dlq-letter"].decode() for record in letters.read(letters.topic)
    )


@pytest.mark.slow
def test_killed_between_any_two_steps_each_letter_is_replayed_once(letters: Any) -> None:
    letters.write(LETTERS)
    script = Path(__file__).with_name("killed_replay.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), letters.kafka.url(letters.topic),
         letters.dead_letter_topic],
        env={**os.environ}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    assert steps >= 18, "each call and what comes after it is a step"
    expected = Counter(f"0-{number}" for number in range(2 * (steps + 1)))
    assert _replayed(letters) == expected
    acts = letters.json("history")
    assert Counter(act["letter"] for act in acts) == expected
    # What was not replayed is, by the same command, and what was is not again.
    letters.run("replay", "--all", "--yes")
    assert _replayed(letters) == Counter(f"0-{number}" for number in range(LETTERS))
    letters.run("replay", "--all", "--yes", code=1)


def test_a_replayed_record_is_the_original_and_counts(letters: Any) -> None:
    headers = [("task", b"shop.charge"), ("id", b"id-1"), ("bin", bytes(range(256)))]
    letters.write(1, headers=headers, key="käse-42".encode(), value=b"\x00\xff", partition=2,
                  failed_at=1_700_000_000.0)  # fmt: skip
    result = letters.run("replay", "0-0", "--why", "the shop is back", "--by", "anna")
    assert "1 letter replayed." in result.stdout
    (record,) = letters.read(letters.topic)
    assert (record.value, record.key, record.partition) == (b"\x00\xff", "käse-42".encode(), 2)
    assert record.headers == [
        *headers,
        ("dlq-replays", b"1"),
        ("dlq-first-failed-at", b"1700000000.000"),
        ("dlq-letter", b"0-0"),
    ]
    (act,) = letters.json("history")
    assert act | {"at": 0} == {
        "letter": "0-0", "act": "replayed", "by": "anna", "at": 0, "why": "the shop is back",
        "to": f"{letters.topic}-2", "task": "shop.charge",
    }  # fmt: skip
    refused = letters.run("replay", "0-0", code=3)
    assert "it was replayed by anna at" in refused.stderr
    letters.run("replay", "0-0", "--force")
    assert len(letters.read(letters.topic)) == 2
    assert [act.get("note") for act in letters.json("history", "0-0")] == [None, "forced"]
    assert letters.committed() == {None}, "the workers' group is not touched"


def test_a_letter_replayed_three_times_is_refused_without_force(letters: Any) -> None:
    for replays in (b"2", b"3"):
        letters.write(1, headers=[("task", b"t"), ("id", b"1"), ("dlq-replays", replays)])
    result = letters.run("replay", "--all", "--yes", code=3)
    assert "1 letter replayed." in result.stdout
    assert "0-1 is refused: it was replayed 3 times and failed each time" in result.stderr
    letters.run("replay", "0-1", "--force")
    assert [dict(record.headers)["dlq-replays"] for record in letters.read(letters.topic)] == [
        b"3", b"4",
    ]  # fmt: skip


def test_who_takes_over_fences_and_nothing_is_done_twice(letters: Any) -> None:
    letters.write(3)
    with Reader(letters.options) as reader, Reader(letters.options) as other:
        index, theirs = letters.index(reader), letters.index(other)
        ids = [LetterId(0, number) for number in range(3)]
        with Desk(letters.options, reader, index.history) as mine:
            replay(letters.options, other, theirs, ids[:1], Order(by="other"))
            with pytest.raises(FencedError, match="Somebody else has begun"):
                mine.carry_out([Deed(ids[0], Act(act="replayed", by="me", at=1.0))])
        # A whole replay takes over in its turn, and leaves what the other has done.
        outcome = replay(letters.options, reader, index, ids, Order(by="me"))
    assert [str(one) for one, _ in outcome.done] == ["0-1", "0-2"]
    assert set(_replayed(letters).values()) == {1}


def test_dry_run_changes_nothing(letters: Any) -> None:
    letters.write(2)
    result = letters.run("replay", "--all", "--dry-run")
    assert result.stdout.splitlines() == [
        "2 letters would be replayed.", f"0-0 to {letters.topic}-0.", f"0-1 to {letters.topic}-0.",
    ]  # fmt: skip
    assert letters.read(letters.topic) == []
    assert letters.history_topic not in letters.kafka_topics()


def test_elsewhere_and_edited(letters: Any) -> None:
    letters.write(1, headers=[("task", b"t"), ("id", b"1"), ("argsrepr", b"('42',)")])
    letters.run("replay", "0-0", "--to-topic", "no-such-topic", code=3)
    assert "no-such-topic" not in letters.kafka_topics()
    letters.run("replay", "0-0", "--to-partition", "9", code=3)
    letters.run("replay", "0-0", "--to-partition", "3", "--args", '["43"]', "--kwargs", "{}")
    (record,) = letters.read(letters.topic)
    assert record.partition == 3
    assert json.loads(record.value) == [["43"], {}, {}]
    assert dict(record.headers)["argsrepr"] == b"('43',)"
    assert letters.json("history")[0]["note"] == "edited"


def test_signed_and_expired_are_refused_with_the_reason(letters: Any) -> None:
    signed = [("task", b"t"), ("id", b"1"), ("content-type", b"application/data")]
    letters.write(1, headers=signed)
    letters.write(
        1, headers=[("task", b"t"), ("id", b"2"), ("expires", b"2020-01-01T00:00:00+00:00")]
    )
    assert "signed" in letters.run("replay", "0-0", "--args", "[]", code=3).stderr
    assert "it expired at 2020-01-01" in letters.run("replay", "0-1", code=3).stderr
    letters.run("replay", "0-0", "0-1", "--without-expiry", "--yes")
    by_id = {dict(record.headers)["id"]: record for record in letters.read(letters.topic)}
    assert by_id[b"1"].headers[:3] == signed
    assert "expires" not in dict(by_id[b"2"].headers)


def test_what_was_too_large_is_fetched_from_where_it_lies(letters: Any) -> None:
    from kafka import KafkaProducer

    from kombu_kafka.publishing import dead_letters

    body = os.urandom(1 << 19)
    client = KafkaProducer(bootstrap_servers=letters.kafka.bootstrap)
    sent = client.send(letters.topic, value=body, key=b"k", headers=[("task", b"t"), ("id", b"1")],
                       partition=1).get(30)  # fmt: skip
    client.close()
    record = next(one for one in letters.read(letters.topic))
    headers = dead_letters.letter_headers(dead_letters.Letter(record, "exception"), 1.7e9)
    client = KafkaProducer(bootstrap_servers=letters.kafka.bootstrap)
    client.send(letters.dead_letter_topic, value=b"", key=b"k",
                headers=[*headers, ("dlq-value-omitted", b"too large")]).get(30)  # fmt: skip
    client.close()
    letters.run("replay", "0-0")
    first, second = letters.read(letters.topic)
    assert (first.offset, first.value) == (sent.offset, body)
    assert (second.value, second.key) == (body, b"k")


def test_skip_needs_a_reason_and_is_kept(letters: Any) -> None:
    letters.write(2)
    letters.run("skip", "0-0", code=2)
    letters.run("skip", "0-0", "--why", "paid by hand", "--by", "anna")
    assert [line["id"] for line in letters.json("list")] == ["0-1"]
    (line,) = letters.json("list", "--state", "skipped")
    assert line["acts"][0] | {"at": 0} == {
        "act": "skipped", "by": "anna", "at": 0, "why": "paid by hand", "task": "shop.charge",
    }  # fmt: skip
    assert "it was skipped by anna" in letters.run("replay", "0-0", code=3).stderr
    assert "1 letter; 1 other (--state all)." in letters.run("list").stderr
    letters.run("skip", "0-1", "--why", "paid by hand")
    none = letters.run("list", code=1).stderr
    assert f"There is no new letter in {letters.dead_letter_topic}; it holds 2 skipped" in none


def test_a_signed_message_verifies_after_export_import_and_replay(
    letters: Any, tmp_path: Path
) -> None:
    serializer = _signer()
    value = serializer.serialize([["käse"], {"amount": 1}, {}]).encode()
    signed = [("task", b"t"), ("id", b"1"), ("content-type", b"application/data")]
    letters.write(1, headers=signed, value=value)
    file = tmp_path / "letters"
    letters.run("export", "0-0", "-o", str(file))
    letters.run("import", str(file), "--force")
    ids = [line["id"] for line in letters.json("list", "--sort", "id", "--reverse")]
    letters.run("replay", *ids, "--yes")
    records = letters.read(letters.topic)
    assert [record.value for record in records] == [value, value]
    assert serializer.deserialize(records[1].value.decode()) == [["käse"], {"amount": 1}, {}]
    shown = letters.run("show", "0-0").stdout
    assert "signed" in shown
    assert "käse" in shown


def _signer() -> Any:
    from celery.security.certificate import Certificate, CertStore
    from celery.security.key import PrivateKey
    from celery.security.serialization import SecureSerializer
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "producer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    cert = Certificate(certificate.public_bytes(serialization.Encoding.PEM))
    store = CertStore()
    store.add_cert(cert)
    return SecureSerializer(PrivateKey(pem), cert, store)
