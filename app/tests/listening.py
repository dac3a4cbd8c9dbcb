"""Listening to Celery's events, for as long as a test wants it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

__all__ = ("heard",)

#: Seconds the thread has to end; it looks once a second whether it is to.
END_SECONDS = 60.0


@contextmanager
def heard(app: Celery) -> Iterator[list[dict[str, Any]]]:
    """Every event, caught by Celery's own receiver in a thread that ends with the context."""
    events: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": events.append})
        thread = threading.Thread(target=receiver.capture, name="heard", daemon=True)
        thread.start()
        try:
            yield events
        finally:
            receiver.should_stop = True
            thread.join(END_SECONDS)
            assert not thread.is_alive(), "the listener does not end"
