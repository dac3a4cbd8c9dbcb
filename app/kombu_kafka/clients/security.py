"""TLS and SASL: what the user may say about them, and what Kafka's clients are told."""

from __future__ import annotations

import logging
import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..url import BrokerURL
from .secret import Secret

__all__ = ("MECHANISMS", "PROTOCOLS", "SecurityOptions", "security_values")

logger = logging.getLogger(__name__)

#: What a listener may speak: whether with TLS, whether with SASL.
PROTOCOLS = {
    "PLAINTEXT": (False, False),
    "SSL": (True, False),
    "SASL_PLAINTEXT": (False, True),
    "SASL_SSL": (True, True),
}
#: SASL mechanisms, the best first: it is the one used where none is named.
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")

#: Names in ``broker_use_ssl``, as Celery documents them (for AMQP, and for Redis with ``ssl_``).
_CELERY_NAMES = {
    "ca_certs": "ssl_cafile",
    "certfile": "ssl_certfile",
    "keyfile": "ssl_keyfile",
    "password": "ssl_key_password",
    "cert_reqs": "ssl_verify",
    "check_hostname": "ssl_check_hostname",
}
#: Largest password file, in bytes; a larger one is no password.
_MAX_PASSWORD_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class SecurityOptions:
    """How the brokers are reached, and as whom.

    Attributes:
        security_protocol: ``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``; by default
            with TLS where anything of TLS is set, with SASL where a user is.
        sasl_mechanism: ``SCRAM-SHA-512``, ``SCRAM-SHA-256`` or ``PLAIN``.
        sasl_username: the user.
        sasl_password: the password; better in a file.
        sasl_password_file: a file that holds the password alone, not readable by everyone.
        ssl_cafile: certificates (PEM) that sign the brokers'; the system's by default.
        ssl_certfile: this client's certificate (PEM), for mutual TLS.
        ssl_keyfile: its key (PEM), where it is not in the same file.
        ssl_key_password: the key's password; better in a file.
        ssl_key_password_file: a file that holds the key's password alone.
        ssl_check_hostname: whether a broker's certificate must bear the name it is reached by.
        ssl_verify: whether a broker's certificate must be signed at all (Celery's ``cert_reqs``).
    """

    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: Secret | None = field(default=None, repr=False)
    sasl_password_file: str | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_key_password: Secret | None = field(default=None, repr=False)
    ssl_key_password_file: str | None = None
    ssl_check_hostname: bool = True
    ssl_verify: bool = True

    def security_settings(self) -> dict[str, Any]:
        """Return what Kafka's clients are told; files are read now.

        Raises:
            ConfigurationError: a file can't be read, or is not what it must be.
        """
        tls, sasl = PROTOCOLS[self.security_protocol]
        settings: dict[str, Any] = {"security_protocol": self.security_protocol}
        if tls:
            settings["ssl_context"] = self.ssl_context()
        if sasl:
            settings |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": _sasl_name(self.sasl_username or "", self.sasl_mechanism),
                "sasl_plain_password": self.sasl_secret(),
            }
        return settings

    def sasl_secret(self) -> Secret | None:
        """Return the user's password; its file is read now.

        Raises:
            ConfigurationError: the file can't be read, or is not what it must be.
        """
        return _secret(self.sasl_password, self.sasl_password_file, "sasl_password_file")

    def key_secret(self) -> Secret | None:
        """Return the password of the client's key; its file is read now.

        Raises:
            ConfigurationError: the file can't be read, or is not what it must be.
        """
        return _secret(self.ssl_key_password, self.ssl_key_password_file, "ssl_key_password_file")

    def ssl_context(self) -> ssl.SSLContext:
        """Return a new TLS context.

        Raises:
            ConfigurationError: a file can't be read, or is not what it must be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = self.ssl_check_hostname and self.ssl_verify
        context.verify_mode = ssl.CERT_REQUIRED if self.ssl_verify else ssl.CERT_NONE
        if self.ssl_cafile is None:
            context.load_default_certs()
        else:
            _load(lambda: context.load_verify_locations(self.ssl_cafile),
                  "ssl_cafile", self.ssl_cafile)  # fmt: skip
        if self.ssl_certfile is not None:
            key_password = self.key_secret()
            certificate = self.ssl_certfile
            # Always a password: without one OpenSSL would ask the terminal.
            _load(lambda: context.load_cert_chain(certificate, self.ssl_keyfile, key_password or ""),
                  "ssl_certfile, ssl_keyfile", ", ".join(filter(None, (certificate, self.ssl_keyfile))))  # fmt: skip
        return context


def security_values(
    address: BrokerURL,
    given: Mapping[str, Any],
    use_ssl: bool | Mapping[str, Any] | None = None,
    username: str | None = None,
    password: str | Callable[[], str] | None = None,
) -> dict[str, Any]:
    """Return the fields of :class:`SecurityOptions` that the user asked for, checked.

    Arguments:
        address: broker URL; its user and password count most.
        given: transport options.
        use_ssl: ``broker_use_ssl``, kombu's ``Connection(ssl=…)``.
        username: kombu's ``Connection(userid=…)``.
        password: kombu's ``Connection(password=…)``; a function is called.

    Raises:
        ConfigurationError: a setting has a value it can't have, or contradicts another.
    """
    names = SecurityOptions.__dataclass_fields__
    values = {name: given[name] for name in names if given.get(name) is not None}
    values = {**_of_celery(use_ssl), **values}
    if address.username is not None:
        values |= {"sasl_username": address.username, "sasl_password": address.password}
    elif username:
        values.setdefault("sasl_username", username)
        secret = password() if callable(password) else password
        if secret and "sasl_password_file" not in values:
            values.setdefault("sasl_password", secret)
    values = {name: value for name, value in values.items() if value is not None}
    _check_types(values)
    wants_tls = bool(use_ssl) or any(name.startswith("ssl_") for name in values)
    wants_sasl = any(name.startswith("sasl_") for name in values)
    protocol = values.setdefault("security_protocol", _protocol(wants_tls, wants_sasl)).upper()
    if protocol not in PROTOCOLS:
        raise ConfigurationError(
            f"The security_protocol {protocol!r} is unknown: use one of {', '.join(PROTOCOLS)}."
        )
    values["security_protocol"] = protocol
    _check_together(values, protocol, wants_tls, wants_sasl)
    for name in ("sasl_password", "ssl_key_password"):
        if name in values:
            values[name] = Secret(values[name])
    return values


def _of_celery(use_ssl: bool | Mapping[str, Any] | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if isinstance(use_ssl, Mapping):
        for given, value in use_ssl.items():
            name = _CELERY_NAMES.get(given.removeprefix("ssl_"), given)
            if name not in SecurityOptions.__dataclass_fields__ or not name.startswith("ssl_"):
                known = ", ".join(_CELERY_NAMES)
                raise ConfigurationError(
                    f"broker_use_ssl holds {given!r}, which this transport does not know: use "
                    f"{known}."
                )
            values[name] = value
    if "ssl_verify" in values and not isinstance(values["ssl_verify"], bool):
        values["ssl_verify"] = _verify(values["ssl_verify"])
    return {name: value for name, value in values.items() if value is not None}


def _verify(cert_reqs: object) -> bool | None:
    """Celery's ``cert_reqs``: a constant of Python's ssl module, or its name."""
    if cert_reqs is None:
        return None
    name = getattr(cert_reqs, "name", str(cert_reqs)).upper().removeprefix("CERT_")
    if name in ("NONE", "0"):
        return False
    if name in ("REQUIRED", "OPTIONAL", "1", "2"):
        return True
    raise ConfigurationError(
        f"broker_use_ssl's cert_reqs can't be {cert_reqs!r}: use ssl.CERT_REQUIRED or ssl.CERT_NONE."
    )


def _protocol(tls: bool, sasl: bool) -> str:
    return next(name for name, kind in PROTOCOLS.items() if kind == (tls, sasl))


def _check_types(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        wanted = bool if name in ("ssl_check_hostname", "ssl_verify") else str
        if not isinstance(value, wanted) or value == "":
            shown = type(value).__name__ if "password" in name else repr(value)
            raise ConfigurationError(
                f"The transport option {name!r} must be "
                f"{'true or false' if wanted is bool else 'text'}, not {shown or 'empty'}."
            )


def _check_together(
    values: dict[str, Any], protocol: str, wants_tls: bool, wants_sasl: bool
) -> None:
    tls, sasl = PROTOCOLS[protocol]
    if wants_tls and not tls:
        raise ConfigurationError(
            f"TLS is asked for (broker_use_ssl or an option ssl_…), but security_protocol is "
            f"{protocol}: set it to {_protocol(True, sasl)}, or remove the others."
        )
    if not sasl:
        if wants_sasl:
            raise ConfigurationError(
                f"A user or a SASL mechanism is set, but security_protocol is {protocol}: set it to "
                f"{_protocol(tls, True)}, or remove the others."
            )
        return
    mechanism = values.setdefault("sasl_mechanism", MECHANISMS[0]).upper()
    if mechanism not in MECHANISMS:
        raise ConfigurationError(
            f"The sasl_mechanism {mechanism!r} is not supported: use one of "
            f"{', '.join(MECHANISMS)}."
        )
    values["sasl_mechanism"] = mechanism
    if "sasl_username" not in values or not {"sasl_password", "sasl_password_file"} & values.keys():
        raise ConfigurationError(
            f"{protocol} needs a user and a password: set sasl_username and sasl_password_file, or "
            f"write them in the broker URL (kafka://user:password@host:9092//topic)."
        )


def _sasl_name(name: str, mechanism: str | None) -> str:
    """SCRAM's messages use commas and equals signs themselves (RFC 5802); the client forgets that."""
    if mechanism == "PLAIN":
        return name
    return name.replace("=", "=3D").replace(",", "=2C")


def _secret(value: Secret | None, file: str | None, option: str) -> Secret | None:
    if value is not None or file is None:
        return value
    path = Path(file)
    try:
        if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ConfigurationError(
                f"Everyone may read {file} ({option}): take that away (chmod o= {file}) and change "
                f"the password."
            )
        with path.open("rb") as opened:
            text = opened.read(_MAX_PASSWORD_BYTES + 1).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise ConfigurationError(f"{file} ({option}) can't be read: {reason}.") from None
    if not text or len(text) > _MAX_PASSWORD_BYTES or "\n" in text:
        raise ConfigurationError(f"{file} ({option}) must hold the password alone, on one line.")
    return Secret(text)


def _load(load: Callable[[], None], option: str, files: str) -> None:
    try:
        load()
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        if isinstance(exc, ssl.SSLError):
            reason = "not PEM, key and certificate don't belong together, or the password is wrong"
        raise ConfigurationError(f"{files} ({option}) can't be used: {reason}.") from None
