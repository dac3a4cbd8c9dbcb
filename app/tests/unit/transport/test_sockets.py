"""Connections that fail leave nothing open."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from kafka.errors import KafkaConnectionError, KafkaTimeoutError
from kafka.net import manager
from kafka.net.inet import create_connection
from kafka.net.selector import NetworkSelector

from kombu_kafka.clients import sockets
from kombu_kafka.clients.sockets import DIRECT
from kombu_kafka.options import Options


@pytest.fixture
def network() -> Iterator[NetworkSelector]:
    """What a client's connections are made in; nothing is collected that merely lies in a cycle."""
    network = NetworkSelector()
    gc.disable()
    try:
        yield network
    finally:
        gc.enable()
        network.close()


@pytest.fixture
def closed() -> Iterator[tuple[str, int]]:
    """An address that nobody listens on, and that nobody else is given."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as held,
    ):
        address = held.getsockname()
        yield address[0], address[1]


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """An address whose queue of connections is full: the system does not answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        yield address[0], address[1]
        for each in waiting:
            each.close()


def _sockets() -> set[str]:
    """The sockets that this process holds; what is left of other tests may still close some."""
    held = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            held.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:  # the listing's own
            continue
    return {each for each in held if each.startswith("socket:")}


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_a_connection_that_fails_is_closed(
    kind: str, network: NetworkSelector, request: pytest.FixtureRequest
) -> None:
    host, port = request.getfixturevalue(kind)
    before = _sockets()
    kept = []
    for _ in range(3):
        with pytest.raises(KafkaConnectionError) as raised:
            network.run(
                create_connection(
                    network, host, port, proxy_url=DIRECT, timeout_at=time.monotonic() + 0.2
                )
            )
        kept.append(raised)  # as a log, a future or a cycle would
    assert _sockets() <= before


def test_an_address_whose_kind_the_host_does_not_know_is_passed_over(
    network: NetworkSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to IPv6 first, on a host without."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        good = (socket.AF_INET, socket.SOCK_STREAM, 0, "", server.getsockname())
        unknown = (255, socket.SOCK_STREAM, 0, "", ("::1", 1))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [unknown, good])
        network.run(
            create_connection(
                network, "a-name", 1, proxy_url=DIRECT, timeout_at=time.monotonic() + 5
            )
        ).close()


@pytest.mark.parametrize("says", [b"", b"no TLS\r\n"])
def test_a_handshake_that_comes_to_nothing_ends_in_time(
    says: bytes, network: NetworkSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a broker whose process stands still the system still takes connections."""
    monkeypatch.setattr(sockets, "HANDSHAKE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        before = _sockets()
        mine = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        # So that the test ends where the handshake does not.
        end = threading.Timer(60, theirs.shutdown, [socket.SHUT_RDWR])
        end.start()
        with theirs:
            theirs.sendall(says)
            mine.setblocking(False)
            made = manager.KafkaSSLTransport(
                network, mine, host="localhost", ssl_context=ssl.create_default_context()
            )
            with pytest.raises((KafkaTimeoutError, ssl.SSLError)) as raised:
                network.run(made.handshake())
            assert end.is_alive(), "it ended by itself"
            end.cancel()
        end.join()
        assert _sockets() <= before, raised


def test_every_client_connects_so() -> None:
    settings = Options.of("kafka://127.0.0.1:9", {}).client_settings()
    assert settings["proxy_url"] == DIRECT
