"""What systemd hears: ready when the worker's partitions are positioned, then a pulse.

Partitions that are bound to the worker are positioned once; in a group a worker is ready when it has
joined and its share is positioned, be that none (there may be more workers than partitions).

The pulse comes from the worker's own event loop, so that a loop that hangs is a worker that is
killed and started again (WatchdogSec=).
"""

from __future__ import annotations

import os
import socket
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger

__all__ = ["Readiness", "notify", "say_stopping", "watchdog_interval"]

logger = get_logger(__name__)

#: Seconds between two looks at whether the partitions are positioned.
POLL = 0.1


def notify(*lines: str) -> None:
    """Tell the service manager, if there is one (sd_notify's protocol: one datagram)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.sendto("\n".join(lines).encode(), address)
        except OSError as exc:
            logger.warning("systemd can't be told %s: %s", lines[0], exc)


def watchdog_interval() -> float | None:
    """Return how often to send a pulse: twice as often as systemd asks for one; None if it doesn't."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or os.environ.get("WATCHDOG_PID") not in (
        None,
        str(os.getpid()),
    ):
        return None
    return int(microseconds) / 2_000_000


def say_stopping(**_: Any) -> None:
    """Tell the service manager that the worker only finishes what it has begun."""
    notify("STOPPING=1", "STATUS=Finishing what is running.")


class Readiness(bootsteps.StartStopStep):
    """Reports a worker's state for as long as its consumer runs."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._said_ready = False

    def start(self, parent: Any) -> None:
        """Start to look, and to send the pulse."""
        self._look(parent)
        interval = watchdog_interval()
        if interval is not None:
            notify("WATCHDOG=1")
            parent.timer.call_repeatedly(interval, notify, ("WATCHDOG=1",))

    def _look(self, parent: Any) -> None:
        connection = parent.connection
        if connection is None:
            return
        positions = connection.transport.positions()
        if positions is None:
            parent.timer.call_after(POLL, self._look, (parent,))
            return
        names = ", ".join(f"{topic}-{number}" for topic, number in sorted(positions))
        where = names or "nothing: other workers of the group have all partitions"
        notify("READY=1", f"STATUS=Consuming {where}.")
        if not self._said_ready:
            self._said_ready = True
            logger.info("Ready: consuming %s.", where)
