"""Ports for servers that a test starts: nobody else is given them meanwhile."""

from __future__ import annotations

import errno
import socket

import pytest

from scheduler import processes


def test_a_port_is_kept_for_the_server_it_was_meant_for() -> None:
    port = processes.free_port()
    assert not processes.listens(port)
    with socket.socket() as other, pytest.raises(OSError, match="in use") as refused:
        other.bind(("127.0.0.1", port))
    assert refused.value.errno == errno.EADDRINUSE
    for _ in range(2):  # a server that is killed comes back to it
        with socket.create_server(("127.0.0.1", port)):
            assert processes.listens(port)
        assert not processes.listens(port)
