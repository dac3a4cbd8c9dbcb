"""Text that must not be shown, and what keeps it out of logs and of kombu's descriptions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kombu import Connection

from ..url import mask_password

__all__ = ("MASK", "DiscreetConnection", "Secret", "make_discreet")

#: What is shown in place of a secret.
MASK = "**"

#: Names of options and settings whose values are secrets: what has one of these words in it …
_SECRET_WORDS = ("password", "secret", "token")
#: … and does not only name a file.
_FILE = "_file"

#: Kafka's number of the request that carries a SASL mechanism's data.
_SASL_AUTHENTICATE = 36


class Secret(str):
    """A password: text for whoever uses it, ``**`` for whoever prints what contains it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return MASK


class _NoSasl(logging.Filter):
    """Takes what SASL sends out of the client's log: with PLAIN that is the password itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_sasl, record.args))
        return True


def _without_sasl(value: object) -> object:
    if isinstance(value, bytes | bytearray) and value[4:6] == _SASL_AUTHENTICATE.to_bytes(2, "big"):
        return "(SASL)"
    return "(SASL)" if type(value).__name__.startswith("SaslAuthenticate") else value


for _name in ("kafka.net.connection", "kafka.protocol.parser"):
    logging.getLogger(_name).addFilter(_NoSasl())


class DiscreetConnection(Connection):
    """A connection whose description may be shown.

    Celery answers ``inspect stats`` with :meth:`info`, which in kombu holds the URL, its
    alternates and all options as they are.
    """

    def info(self) -> dict[str, Any]:
        """Describe the connection, without its secrets."""
        return {name: _masked(name, value) for name, value in super().info().items()}

    def __reduce__(self) -> Any:
        # A pickled connection is for use, not for show.
        return Connection, tuple(value for _, value in self._info()), None


def make_discreet(connection: Any) -> None:
    """Have a connection of kombu's describe itself without its secrets."""
    if type(connection) is Connection:
        connection.__class__ = DiscreetConnection


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _masked(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(name, item) for item in value]
    lowered = name.lower()
    if value and any(w in lowered for w in _SECRET_WORDS) and not lowered.endswith(_FILE):
        return MASK
    return mask_password(value, MASK) if isinstance(value, str) else value
