"""Until when certificates are valid: those that brokers show, and those in files of our own."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

from kombu_kafka.options import Options

__all__ = ["of_brokers", "of_files"]

#: Seconds that a broker has to show its certificate.
CONNECT_SECONDS = 5.0


def of_brokers(options: Options) -> dict[str, float]:
    """Return until when the certificate is valid that each bootstrap server shows.

    A server that can't be reached, or whose certificate is refused, is left out: then Kafka's
    clients can't reach it either, and say so.
    """
    found: dict[str, float] = {}
    for address in options.hosts:
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError):  # ssl.SSLError is one
            context = options.ssl_context()
            host = host.strip("[]")
            with (
                socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS) as raw,
                context.wrap_socket(raw, server_hostname=host) as secured,
            ):
                shown = secured.getpeercert() or {}
            if "notAfter" in shown:
                found[address] = ssl.cert_time_to_seconds(str(shown["notAfter"]))
    return found


def of_files(paths: Iterable[str]) -> dict[str, float]:
    """Return until when the first certificate of each PEM file is valid: its owner's own.

    Raises:
        OSError: a file can't be read.
        ValueError: a file holds no certificate.
        ModuleNotFoundError: the extra ``kombu-kafka[security]`` is not installed.
    """
    paths = tuple(paths)
    if not paths:
        return {}
    from cryptography import x509

    return {
        path: x509.load_pem_x509_certificate(
            Path(path).read_bytes()
        ).not_valid_after_utc.timestamp()
        for path in paths
    }
