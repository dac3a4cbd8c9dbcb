"""Who may read metrics, and over what: a password, TLS."""

from __future__ import annotations

import base64
import binascii
import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scheduler.settings import SettingsError

__all__ = ["Access", "AccessError"]


class AccessError(SettingsError):
    """The metrics' password or certificate can't be used; the message says which, and why."""


@dataclass(frozen=True)
class Access:
    """What a reader of the metrics must show, and what it is shown.

    Attributes:
        user: Whose password it is.
        password: None asks for none; never shown by `repr`.
        tls: Certificate and key; None speaks in the clear.
    """

    user: str = "prometheus"
    password: str | None = None
    tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"Access(user={self.user!r}, tls={self.tls is not None})"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Access:
        """Read CELERY_METRICS_USER, _PASSWORD_FILE, _TLS_CERTIFICATE and _TLS_KEY.

        Raises:
            AccessError: A file can't be read, or is not what it should be.
        """
        given = {name: value.strip() for name, value in environ.items() if value.strip()}
        password = None
        if (file := given.get("CELERY_METRICS_PASSWORD_FILE")) is not None:
            try:
                password = Path(file).read_text().strip()
            except (OSError, UnicodeDecodeError) as exc:
                raise AccessError(f"CELERY_METRICS_PASSWORD_FILE can't be read: {exc}.") from exc
            if not password:
                raise AccessError(f"CELERY_METRICS_PASSWORD_FILE={file} is empty.")
        certificate = given.get("CELERY_METRICS_TLS_CERTIFICATE")
        key = given.get("CELERY_METRICS_TLS_KEY")
        if (certificate is None) != (key is None):
            raise AccessError(
                "CELERY_METRICS_TLS_CERTIFICATE and CELERY_METRICS_TLS_KEY belong together: set"
                " both, or neither."
            )
        tls = None
        if certificate is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            try:
                tls.load_cert_chain(certificate, key)
            except OSError as exc:  # an SSLError is one
                raise AccessError(
                    f"The certificate {certificate} can't be used with its key {key}: {exc}."
                ) from exc
        return cls(given.get("CELERY_METRICS_USER", "prometheus"), password, tls)

    def admits(self, authorization: str | None) -> bool:
        """Whether a request with this `Authorization` header may read; takes the same time always."""
        if self.password is None:
            return True
        kind, _, encoded = (authorization or "").partition(" ")
        try:
            shown = base64.b64decode(encoded, validate=True) if kind.lower() == "basic" else b""
        except binascii.Error:
            shown = b""
        return hmac.compare_digest(shown, f"{self.user}:{self.password}".encode())
