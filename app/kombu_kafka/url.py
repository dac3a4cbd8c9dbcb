"""Broker URLs: ``kafka://kafka1:9092,kafka2:9092,kafka3:9092//tasks``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from .errors import ConfigurationError

__all__ = ("DEFAULT_PORT", "BrokerURL", "mask_password", "parse")

#: Kafka's port where the URL names none.
DEFAULT_PORT = 9092

#: Up to the last @, whatever stands between: of a URL that is wrong too, no password is shown.
_PASSWORD = re.compile(r"(://[^:/@;]*:)[^;]*(@)")
_PASSWORD_OPTION = re.compile(r"([?&][^=&;]*password=)[^&;]*", re.IGNORECASE)

_SHAPE = "kafka://host:9092,host:9092//topic"


@dataclass(frozen=True)
class BrokerURL:
    """A broker URL, taken apart.

    Attributes:
        hosts: ``host:port`` of each bootstrap server, in the URL's order.
        topic: the default topic (the part after ``//``), or None.
        username: for SASL, or None.
        password: for SASL, or None; never shown by ``repr``.
        options: what followed the ``?``, as strings.
    """

    hosts: tuple[str, ...]
    topic: str | None = None
    username: str | None = None
    password: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """Show everything but the credentials."""
        return f"BrokerURL(hosts={self.hosts!r}, topic={self.topic!r})"


def parse(url: str) -> BrokerURL:
    """Take a broker URL apart.

    Raises:
        ConfigurationError: the URL has not the shape ``kafka://host:9092,host:9092//topic``.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in ("kafka", "confluentkafka"):
        raise ConfigurationError(
            f"The broker URL {mask_password(url)!r} does not start with kafka://; it must look "
            f"like {_SHAPE}."
        )
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    if "@" in path + query:
        raise ConfigurationError(
            f"The user or the password in the broker URL {mask_password(url)!r} holds a character "
            f"that means something else there: write / as %2F, ? as %3F, @ as %40."
        )
    userinfo, at, addresses = authority.rpartition("@")
    username, colon, password = userinfo.partition(":")
    hosts = tuple(_address(part, url) for part in addresses.split(",") if part.strip())
    if not hosts:
        raise ConfigurationError(
            f"The broker URL {mask_password(url)!r} names no host; it must look like {_SHAPE}."
        )
    return BrokerURL(
        hosts=hosts,
        topic=unquote(path.strip("/")) or None,
        username=unquote(username) if at else None,
        password=unquote(password) if at and colon else None,
        options=tuple(parse_qsl(query, keep_blank_values=True)),
    )


def mask_password(url: str, mask: str = "**") -> str:
    """Return `url` with the password, if it has one, replaced by `mask`; each of several with ``;``."""
    masked = _PASSWORD.sub(rf"\g<1>{mask}\g<2>", url)
    return _PASSWORD_OPTION.sub(rf"\g<1>{mask}", masked)


def _address(text: str, url: str) -> str:
    text = text.strip()
    host, colon, port = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")):
        host, port = text, str(DEFAULT_PORT)
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(
            f"{text!r} in the broker URL {mask_password(url)!r} is not host:port with a port "
            f"from 1 to 65535."
        )
    return f"{host}:{port}"
