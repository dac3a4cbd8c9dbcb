"""The body of a task, checked: a list, a mapping, a mapping, each of what Celery takes out of it."""

from __future__ import annotations

from typing import Any

__all__ = ["fault"]

#: What follows a task, by name in the body's third part, and whether there may be several.
_FOLLOWING = {"callbacks": True, "errbacks": True, "chain": True, "chord": False}


def fault(body: Any) -> str | None:
    """Say in a sentence why a task can't be run from this body; or None."""
    if not isinstance(body, list | tuple) or len(body) != 3:
        return "The body of a task must be [args, kwargs, embed]."
    args, kwargs, embed = body
    if not isinstance(args, list | tuple):
        return f"A task's args must be a list, not {_kind(args)}."
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        return f"A task's kwargs must be a mapping of names, not {_kind(kwargs)}."
    if embed is not None and not isinstance(embed, dict):
        return f"The third part of a task's body must be a mapping, not {_kind(embed)}."
    for name, several in _FOLLOWING.items():
        value = (embed or {}).get(name)
        if value is None:
            continue
        signatures = value if several else [value]
        if not isinstance(signatures, list | tuple) or not all(map(_is_signature, signatures)):
            return f"What follows a task ({name!r}) must be signatures."
    return None


def _is_signature(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("task"), str)


def _kind(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
