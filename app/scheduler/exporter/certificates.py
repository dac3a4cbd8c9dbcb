"""Until when certificates are valid: those that servers show, and those in files of our own."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["of_files", "of_servers"]

#: Seconds that a server has to show its certificate.
CONNECT_SECONDS = 5.0
#: Servers that are asked at once.
AT_ONCE = 16


def of_servers(addresses: Iterable[str], context: ssl.SSLContext | None = None) -> dict[str, float]:
    """Return until when the certificate is valid that each server shows.

    Whichever it shows: one that is too old, or that nobody vouches for, is told like any other, and
    nothing else is said to its server. One that can't be reached, or speaks no TLS, is left out.

    Arguments:
        addresses: ``host:port`` of each.
        context: with the client's own certificate, where servers want one.

    Raises:
        ModuleNotFoundError: the extra ``kombu-kafka[security]`` is not installed.
    """
    addresses = tuple(addresses)
    if not addresses:
        return {}
    context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="exporter-certificates") as asked:
        shown = asked.map(lambda address: _shown(address, context), addresses)
        return {address: _end(der) for address, der in zip(addresses, shown, strict=True) if der}


def of_files(
    paths: Iterable[str], complain: Callable[[OSError | ValueError], object] = lambda exc: None
) -> dict[str, float]:
    """Return until when the first certificate of each PEM file is valid: its owner's own.

    Args:
        paths: the files.
        complain: called for each that can't be read or holds no certificate; it is left out.

    Raises:
        ModuleNotFoundError: the extra ``kombu-kafka[security]`` is not installed.
    """
    paths = tuple(paths)
    if not paths:
        return {}
    from cryptography import x509

    ends = {}
    for path in paths:
        try:
            found = x509.load_pem_x509_certificate(Path(path).read_bytes())
        except (OSError, ValueError) as exc:
            complain(exc)
        else:
            ends[path] = found.not_valid_after_utc.timestamp()
    return ends


def _shown(address: str, context: ssl.SSLContext) -> bytes | None:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=host) as secured,
        ):
            return secured.getpeercert(binary_form=True)
    # ssl.SSLError is the one, a name that can't be a host's the other.
    except (OSError, ValueError):
        return None


def _end(der: bytes) -> float:
    from cryptography import x509

    return x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()
