"""What librdkafka is told of the brokers and of security: the same as kafka-python, in its words."""

from __future__ import annotations

import logging
import ssl
import sys
from typing import Any

from ..errors import ConfigurationError
from ..options import Options
from .secret import MASK
from .security import PROTOCOLS

__all__ = ("Log", "refuse_greenlets", "settings")

logger = logging.getLogger(__name__)

#: What makes threads greenlets, and which of its functions says whether it did.
_GREEN = (("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched"))


class Log:
    """Takes what librdkafka would write to stderr, without the secrets that it was told.

    Arguments:
        secrets: what must not be shown.
    """

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets

    def log(self, level: int, text: str, *args: object) -> None:
        """Log a line of librdkafka's."""
        line = text % args
        for secret in self._secrets:
            line = line.replace(secret, MASK)
        logger.log(level, "%s", line)


def settings(options: Options) -> dict[str, Any]:
    """Return the settings of a client; files are read now.

    Raises:
        ConfigurationError: a certificate's or a password's file can't be used.
    """
    tls, sasl = PROTOCOLS[options.security_protocol]
    told: dict[str, Any] = {
        "bootstrap.servers": ",".join(options.hosts),
        "client.id": options.client_id,
        "reconnect.backoff.max.ms": 1000,
        "log.connection.close": False,  # brokers hang up on idle clients: no news
        "security.protocol": options.security_protocol,
    }
    if tls:
        told |= _tls(options)
    if sasl:
        told |= {
            "sasl.mechanism": options.sasl_mechanism,
            "sasl.username": options.sasl_username,
            "sasl.password": options.sasl_secret(),
        }
    secrets = [value for name, value in told.items() if name.endswith("password")]
    return {**told, "logger": Log(tuple(secrets))}


def _tls(options: Options) -> dict[str, Any]:
    options.ssl_context()  # what is wrong with the files is said in Python's words
    system = ssl.get_default_verify_paths()
    authorities = options.ssl_cafile or system.cafile or system.capath
    checked = options.ssl_verify and options.ssl_check_hostname
    told: dict[str, Any] = {
        "enable.ssl.certificate.verification": options.ssl_verify,
        "ssl.endpoint.identification.algorithm": "https" if checked else "none",
    }
    if authorities is not None:
        told["ssl.ca.location"] = authorities
    if options.ssl_certfile is not None:
        told["ssl.certificate.location"] = options.ssl_certfile
        told["ssl.key.location"] = options.ssl_keyfile or options.ssl_certfile
        secret = options.key_secret()
        if secret is not None:
            told["ssl.key.password"] = secret
    return told


def refuse_greenlets() -> None:
    """Raise where threads are greenlets: librdkafka waits in C, which would stop all of them.

    Raises:
        ConfigurationError: they are.
    """
    for name, patched in _GREEN:
        module = sys.modules.get(name)
        if module is not None and getattr(module, patched)("socket"):
            raise ConfigurationError(
                f"librdkafka does not work with greenlets ({name.partition('.')[0]}), all of which "
                f"its waits would stop: remove the transport option 'publisher_client', or use "
                f"another pool."
            )
