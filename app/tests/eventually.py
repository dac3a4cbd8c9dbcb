"""Waiting for what will be so, with a limit: no test depends on how fast anything is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["eventually"]

#: Seconds between two looks.
PAUSE = 0.05


def eventually(condition: Callable[[], Any], limit: float = 120, *, what: str = "") -> Any:
    """Return what `condition` returns once that is true; fail after `limit` seconds.

    Arguments:
        condition: asked again and again.
        limit: seconds.
        what: what is waited for, for the failure's message.
    """
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(PAUSE)
    return pytest.fail(f"not so after {limit:g} seconds: {what or condition}")
