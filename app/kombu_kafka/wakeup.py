"""A descriptor that an event loop can wait on, set from any thread."""

from __future__ import annotations

import errno
import math
import os
import select
import threading

__all__ = ("Wakeup",)


class Wakeup:
    """Readable from `set` until `clear`; a pipe, since eventfd is Linux's alone.

    Attributes:
        fd: what to wait on for reading.
    """

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        self._lock = threading.Lock()
        self._is_set = False
        self._closed = False

    def set(self) -> None:
        """Make the descriptor readable; does nothing if it is, or once closed."""
        with self._lock:
            if not self._is_set and not self._closed:
                os.write(self._write_fd, b"\0")
                self._is_set = True

    def clear(self) -> None:
        """Make the descriptor unreadable; what is set after this is not missed."""
        with self._lock:
            if self._is_set and not self._closed:
                os.read(self.fd, 1)
                self._is_set = False

    def wait(self, timeout: float | None) -> bool:
        """Wait until it is set; return whether it is, after `timeout` seconds at most (None: no limit).

        Not by select(2) where that can be helped: it knows no descriptor above 1,023, and the publisher
        may be a server with thousands. Looked up at each call, as greenlets put their own in its place.

        Raises:
            OSError: it was closed.
        """
        if self._closed:
            raise OSError(errno.EBADF, "closed")
        if not hasattr(select, "poll"):  # eventlet takes it away
            return bool(select.select([self.fd], [], [], timeout)[0])
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else math.ceil(timeout * 1000)))

    def close(self) -> None:
        """Close both ends."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.fd)
                os.close(self._write_fd)
