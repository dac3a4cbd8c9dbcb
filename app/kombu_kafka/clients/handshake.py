"""One connection to each broker in turn, to learn whether we are let in.

Kafka's client treats a refused login like a lost connection and tries again. No retry mends a wrong
password, so this comes first and says in a sentence what is wrong; a broker that does not answer
gets no verdict here, since that may be weather.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka.errors import (
    AuthorizationError,
    KafkaConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    RetriableError,
    for_code,
)
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from ..errors import AuthenticationError, BrokerUnavailableError, ConfigurationError
from ..options import Options
from .security import PROTOCOLS

__all__ = ("reaching", "require_access", "why")

#: Seconds for each step with one broker.
STEP_SECONDS = 5.0

#: Options that a broker has let in, in this process.
_let_in: set[Options] = set()

#: A TLS record's first byte when it holds a handshake, or an alert.
_TLS_RECORDS = (b"\x16", b"\x15")


class _UnansweredError(Exception):
    """The broker is not there, or went away: no verdict."""


class _ClosedError(Exception):
    """The broker closed the connection without a word, which may mean something."""


def require_access(options: Options, *, again: bool = False) -> bool:
    """Raise unless a broker lets this client in, or none of them answers.

    Arguments:
        options: brokers and credentials.
        again: ask although a broker has let these options in before.

    Returns:
        Whether a broker lets this client in; if not, none of them answered.

    Raises:
        AuthenticationError: every broker that answers refuses this client.
        ConfigurationError: a certificate's or a password's file can't be used.
    """
    if options in _let_in and not again:
        return True
    settings = options.security_settings()
    verdict: AuthenticationError | None = None
    for address in options.hosts:
        try:
            _try(address, options, settings)
        except AuthenticationError as exc:
            verdict = exc
        except (_UnansweredError, OSError):
            continue
        else:
            _let_in.add(options)
            return True
    if verdict is not None:
        raise verdict
    return False


def why(options: Options, exc: Exception) -> Exception:
    """Return why a client failed: that the brokers don't let it in, if they don't, else `exc`."""
    try:
        require_access(options, again=True)
    except ConfigurationError as refusal:
        return refusal
    return exc


@contextmanager
def reaching(options: Options, operation: str = "the operation") -> Iterator[None]:
    """Around making and using a client of Kafka's: what it raises becomes ours, and true.

    Arguments:
        options: brokers and credentials.
        operation: what to grant this client if it may not do that.

    Raises:
        AuthenticationError: the brokers don't let this client in.
        ConfigurationError: they let it in, but it may not do this.
        BrokerUnavailableError: none of them answered in time.
    """
    require_access(options)
    try:
        yield
    except AuthorizationError as exc:
        raise ConfigurationError(
            f"Kafka at {', '.join(options.hosts)} does not allow this client to do that ({exc}): "
            f"grant it {operation} with kafka-acls.sh."
        ) from exc
    except KafkaConfigurationError as exc:
        raise ConfigurationError(f"Kafka's client can't be set so: {exc}.") from exc
    except KafkaError as exc:
        require_access(options, again=True)
        where = ", ".join(options.hosts)
        raise BrokerUnavailableError(
            (
                f"No Kafka broker of {where} answered within {options.connect_timeout:g} seconds"
                if isinstance(exc, RetriableError | KafkaTimeoutError)
                else f"Kafka at {where} did not answer as it should"
            )
            + f" ({exc}): check the addresses and that the brokers are up."
        ) from exc


def _try(address: str, options: Options, settings: dict[str, Any]) -> None:
    _, sasl = PROTOCOLS[options.security_protocol]
    try:
        with _connect(address, options, settings.get("ssl_context")) as connection:
            line = _Line(connection, options)
            try:
                line.ask(ApiVersionsRequest(version=0))
                if sasl:
                    _log_in(line, address, options, settings)
                line.ask(MetadataRequest(version=1, topics=[]))
            except ssl.SSLError as exc:
                raise AuthenticationError(_refused_certificate(address, exc)) from None
    except (_ClosedError, ConnectionResetError, BrokenPipeError):
        _explain(address, options)
        raise _UnansweredError from None


def _connect(
    address: str, options: Options, context: ssl.SSLContext | None = None
) -> socket.socket:
    host, _, port = address.rpartition(":")
    timeout = min(STEP_SECONDS, options.connect_timeout)
    raw = socket.create_connection((host.strip("[]"), int(port)), timeout=timeout)
    if context is None:
        return raw
    try:
        return _secured(raw, address, context)
    except BaseException:
        raw.close()
        raise


def _secured(raw: socket.socket, address: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    host = address.rpartition(":")[0].strip("[]").rstrip(".")
    try:
        return context.wrap_socket(raw, server_hostname=host)
    except ssl.SSLCertVerificationError as exc:
        advice = (
            "reach the brokers by a name in their certificates"
            if exc.verify_code in (62, 64)  # the name, the IP address
            else "set ssl_cafile to the certificate of the authority that signed it"
        )
        raise AuthenticationError(
            f"The certificate of {address} is not trusted ({exc.verify_message}): {advice}."
        ) from None
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as exc:
        raise _ClosedError from exc
    except ssl.SSLError as exc:
        if exc.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            raise _ClosedError from exc
        raise AuthenticationError(_refused_certificate(address, exc)) from None


def _refused_certificate(address: str, exc: ssl.SSLError) -> str:
    reason = (exc.reason or str(exc)).replace("_", " ").lower()
    return (
        f"{address} refuses the TLS connection ({reason}): check ssl_certfile and ssl_keyfile, and "
        f"that the brokers trust who signed that certificate."
    )


class _Line:
    """Requests and answers, one after the other."""

    def __init__(self, connection: socket.socket, options: Options) -> None:
        self._connection = connection
        self._protocol = KafkaProtocol(client_id=options.client_id)

    def ask(self, request: Any) -> Any:
        self._protocol.send_request(request)
        self._connection.sendall(self._protocol.send_bytes())
        while True:
            data = self._connection.recv(65536)
            if not data:
                raise _ClosedError
            try:
                for _, answer in self._protocol.receive_bytes(data):
                    return answer
            except KafkaError as exc:  # whatever this is, it isn't Kafka
                raise _ClosedError from exc


def _log_in(line: _Line, address: str, options: Options, settings: dict[str, Any]) -> None:
    offered = line.ask(SaslHandshakeRequest(version=1, mechanism=options.sasl_mechanism))
    if offered.error_code:
        raise AuthenticationError(_no_sasl(address, options, offered))
    mechanism = get_sasl_mechanism(options.sasl_mechanism)(host=address, **settings)
    try:
        while not mechanism.is_done():
            token = mechanism.auth_bytes()
            answer = line.ask(SaslAuthenticateRequest(version=0, auth_bytes=token))
            if answer.error_code:
                break
            mechanism.receive(answer.auth_bytes)
    except (ValueError, KeyError):
        pass  # the broker doesn't know the password either
    if not mechanism.is_done() or not mechanism.is_authenticated():
        raise AuthenticationError(
            f"{address} refuses the user {options.sasl_username!r} ({options.sasl_mechanism}): "
            f"check the user and the password."
        )


def _no_sasl(address: str, options: Options, offered: Any) -> str:
    if offered.mechanisms:
        return (
            f"{address} does not take {options.sasl_mechanism}: set sasl_mechanism to one of "
            f"{', '.join(sorted(offered.mechanisms))}."
        )
    return (
        f"{address} asks for no user ({for_code(offered.error_code).__name__}): name a port that "
        f"does, or set no user."
    )


def _explain(address: str, options: Options) -> None:
    """Ask a port that hung up what it speaks; raise if that is not what we speak.

    Raises:
        AuthenticationError: it speaks something else.
    """
    tls, sasl = PROTOCOLS[options.security_protocol]
    if not tls and _speaks_tls(address, options):
        raise AuthenticationError(
            f"{address} speaks TLS, and this client does not: set broker_use_ssl or "
            f"security_protocol={'SASL_SSL' if sasl else 'SSL'}, or name a port without TLS."
        )
    if tls and _mechanisms(address, options, tls=False) is not None:
        raise AuthenticationError(
            f"{address} does not speak TLS, and this client does: name a port with TLS, or remove "
            f"broker_use_ssl and the options ssl_…."
        )
    if not sasl and (mechanisms := _mechanisms(address, options, tls=tls)):
        raise AuthenticationError(
            f"{address} asks for a user ({', '.join(mechanisms)}): set sasl_username and "
            f"sasl_password_file, or write them in the broker URL."
        )


def _speaks_tls(address: str, options: Options) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = context.wrap_bio(incoming, outgoing)
    with suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    try:
        with _connect(address, options) as raw:
            raw.sendall(outgoing.read())
            return raw.recv(1) in _TLS_RECORDS
    except OSError:
        return False


def _mechanisms(address: str, options: Options, *, tls: bool) -> list[str] | None:
    """Return the SASL mechanisms a port offers; None if it doesn't speak Kafka this way."""
    try:
        context = options.ssl_context() if tls else None
        with _connect(address, options, context) as connection:
            line = _Line(connection, options)
            answer = line.ask(SaslHandshakeRequest(version=1, mechanism="?"))
            return sorted(answer.mechanisms or ())
    except (OSError, _ClosedError, AuthenticationError):
        return None
