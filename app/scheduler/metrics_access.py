"""Who may read metrics, and over what: a password, TLS."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scheduler.settings import SettingsError

__all__ = ["Access", "AccessError", "CurrentAccess"]

logger = logging.getLogger(__name__)

#: What names a file that is read.
_FILES = (
    "CELERY_METRICS_PASSWORD_FILE",
    "CELERY_METRICS_TLS_CERTIFICATE",
    "CELERY_METRICS_TLS_KEY",
)


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


class CurrentAccess:
    """What the environment's files say now, so that what is renewed needs no restart.

    Arguments:
        environ: as `Access.from_environ` takes it.

    Raises:
        AccessError: A file can't be read, or is not what it should be; later ones are logged, and
            what was read before goes on.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._stamps = self._look()
        self._access = Access.from_environ(environ)

    def __call__(self) -> Access:
        """Return who may read, and over what."""
        stamps = self._look()
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._access = Access.from_environ(self._environ)
            except AccessError as exc:
                logger.error("Metrics are served as before, for now. %s", exc)
        return self._access

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(self._environ.get(name, "").strip()) for name in _FILES)


def _stamp(file: str) -> object:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
