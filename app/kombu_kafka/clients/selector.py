"""The selector that Kafka's client waits with."""

from __future__ import annotations

import selectors
from typing import Any

__all__ = ("Selector",)


class Selector(selectors.DefaultSelector):
    """As the system's, but says cheaply that a socket is not registered.

    kafka-python 3.0.12 asks before each wait for an answer, and `selectors` puts the socket's description
    into the error: two system calls, a quarter of the network thread's time.
    """

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Return what is registered for a file.

        Raises:
            KeyError: nothing is.
        """
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        # A closed socket has no descriptor, and is looked for as what it is.
        return super().get_key(fileobj if fd < 0 else fd)
