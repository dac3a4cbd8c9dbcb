"""The Celery side of the system: the app, its base task, dead letters, readiness and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kombu_kafka as _kombu_kafka  # noqa: F401 (from here on kafka:// means our transport)

if TYPE_CHECKING:
    from scheduler.task import DeadLetterTask

__all__ = ["DeadLetterTask", "celery"]


def __getattr__(name: str) -> Any:
    """Load lazily: `celery -A scheduler` looks up `celery`, yet importing a module of ours needs no settings."""
    if name == "celery":
        from scheduler.app import app

        return app
    if name == "DeadLetterTask":
        from scheduler.task import DeadLetterTask

        return DeadLetterTask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
