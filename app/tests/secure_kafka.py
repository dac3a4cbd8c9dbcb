"""A broker that demands to know its clients: TLS with client certificates, SASL, ACLs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialUpsertion
from kafka.errors import KafkaError

from scheduler.local_broker import LocalKafka
from tests.eventually import eventually

__all__ = ["PASSWORDS", "Authority", "secure_kafka"]

#: Passwords by user. `alice` may do everything, the others what a test grants them.
PASSWORDS = {
    "alice": "al@ice/se:cret,=1",
    "worker": "the workers' password",
    "producer": "the producers' password",
    "operator": "the operators' password",
    "nobody": "nobodys password",
    "team=a,b": "a name that SCRAM must escape",
}

_DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates, which lie in a directory as `NAME.pem` and `NAME.key`."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = directory / f"{name}.pem"
        certificate = self._sign(self._name, self._key, ca=True)
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, *, password: bytes | None = None, hosts: bool = True,
        valid: datetime.timedelta = _DAY,
    ) -> Path:  # fmt: skip
        """Make a key and its certificate, valid for so long; return the file that holds both."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, hosts=hosts, valid=valid)
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        pem = serialization.Encoding.PEM
        both = self.directory / f"{name}.pem"
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption)
        both.write_bytes(secret + certificate.public_bytes(pem))
        both.chmod(0o600)
        return both

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool = False,
        hosts: bool = False, valid: datetime.timedelta = _DAY,
    ) -> x509.Certificate:  # fmt: skip
        now = datetime.datetime.now(datetime.UTC)
        names: list[x509.GeneralName] = [x509.DNSName("somebody.else")]
        if hosts:
            names = [
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            ]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + valid)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def secure_kafka(authority: Authority) -> LocalKafka:
    """Start one node with a plain listener for the test's admin, and four that ask who is there.

    MUTUAL (TLS, a certificate demanded), TLS (SASL over TLS), CLEAR (SASL), OTHER (TLS, of a
    certificate that bears another name). Without an ACL nobody but alice, the test's plain clients
    and the certificate `client` may do anything.
    """
    keys = authority.issue("broker")
    other = authority.issue("other", hosts=False)
    plain = " ".join(f'user_{name}="{word}"' for name, word in PASSWORDS.items() if name.isalpha())
    module = "org.apache.kafka.common.security"
    properties: dict[str, object] = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:CN=client;User:alice",
        "auto.create.topics.enable": "false",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": keys,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": authority.file,
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.other.ssl.keystore.type": "PEM",
        "listener.name.other.ssl.keystore.location": other,
        "listener.name.other.ssl.truststore.type": "PEM",
        "listener.name.other.ssl.truststore.location": authority.file,
    }
    for name in ("tls", "clear"):
        listener = f"listener.name.{name}"
        properties[f"{listener}.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
        properties[f"{listener}.plain.sasl.jaas.config"] = (
            f"{module}.plain.PlainLoginModule required {plain};"
        )
        for scram in ("scram-sha-256", "scram-sha-512"):
            properties[f"{listener}.{scram}.sasl.jaas.config"] = (
                f"{module}.scram.ScramLoginModule required;"
            )
    kafka = LocalKafka(
        properties=properties,
        listeners={"MUTUAL": "SSL", "TLS": "SASL_SSL", "CLEAR": "SASL_PLAINTEXT", "OTHER": "SSL"},
    ).start()
    admin = kafka.admin()
    try:
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):  # one a user in a request
            failed = admin.alter_user_scram_credentials(
                [
                    UserScramCredentialUpsertion(name, mechanism, word)
                    for name, word in PASSWORDS.items()
                ]
            )
            assert not any(failed.values()), failed
    finally:
        admin.close()
    # A broker takes in what it confirmed a moment later.
    eventually(lambda: _logs_in(kafka, authority, "alice"), what="alice to be let in")
    return kafka


def _logs_in(kafka: LocalKafka, authority: Authority, name: str) -> bool:
    try:
        KafkaAdminClient(
            bootstrap_servers=kafka.addresses("TLS"),
            security_protocol="SASL_SSL",
            ssl_cafile=str(authority.file),
            sasl_mechanism="SCRAM-SHA-512",
            sasl_plain_username=name,
            sasl_plain_password=PASSWORDS[name],
        ).close()
    except KafkaError:
        return False
    return True
