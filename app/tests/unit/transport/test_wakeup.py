"""The descriptor that wakes an event loop."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from kombu_kafka.wakeup import Wakeup


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """More than select(2) knows of."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2_048), before[1]))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
    try:
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_descriptors")
def test_it_is_waited_for_above_a_thousand_descriptors() -> None:
    wakeup = Wakeup()
    try:
        assert wakeup.fd > 1_024
        assert not wakeup.wait(0.01)
        wakeup.set()
        assert wakeup.wait(None)
        wakeup.clear()
        assert not wakeup.wait(0)
    finally:
        wakeup.close()


def test_who_waits_hears_of_its_end() -> None:
    wakeup = Wakeup()

    def wait() -> None:
        with suppress(OSError):  # had it not begun to when it was closed, it is refused
            wakeup.wait(None)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    time.sleep(0.1)  # so that it waits, as a rule
    wakeup.close()
    waiting.join(60)
    assert not waiting.is_alive()
    with pytest.raises(OSError, match="closed"):
        wakeup.wait(0)
