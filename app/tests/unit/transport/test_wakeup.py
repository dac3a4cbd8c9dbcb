"""The descriptor that wakes an event loop."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

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
