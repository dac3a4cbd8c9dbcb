"""Headers of a task, checked: what Celery's consumer reads of them it reads without looking."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ("TEXTS", "TYPED", "fault")

#: Celery's headers that are not text, and what a foreign producer's text for them must hold.
TYPED: dict[str, type] = {
    "retries": int,
    "group_index": int,
    "replaced_task_nesting": int,
    "ignore_result": bool,
    "timelimit": list,
    "stamped_headers": list,
    "stamps": dict,
}

#: Celery's headers that are text, if they are there.
TEXTS = frozenset(
    ("lang", "root_id", "parent_id", "group", "meth", "shadow", "eta", "expires", "argsrepr",
     "kwargsrepr", "origin", "compression")
)  # fmt: skip

#: Longest name of a task and longest id, in characters: they go into every log line and event.
_MAX_NAME = 1000

#: What a count may be at most: it travels as a machine's integer.
_MAX_COUNT = 2**31 - 1


def fault(headers: Mapping[str, Any], read_as_json: Collection[str]) -> str | None:
    """Say in a sentence (without its full stop) why a task with these headers can't run; or None.

    Arguments:
        headers: as they were read.
        read_as_json: those of `TEXTS` that may hold something else than text.
    """
    for name in ("task", "id"):
        text = headers.get(name)
        if not isinstance(text, str) or not text:
            return f"the record is a task, but its header {name!r} is empty"
        if len(text) > _MAX_NAME:
            return f"the header {name!r} is longer than {_MAX_NAME} characters"
    for name in read_as_json:
        value = headers.get(name)
        if value is not None and not isinstance(value, str):
            return f"the header {name!r} must be text, not {_shown(value)}"
    for name, kind in TYPED.items():
        value = headers.get(name)
        if value is None:
            continue
        if type(value) is not kind:
            return f"the header {name!r} must be a JSON {kind.__name__}, not {_shown(value)}"
        if kind is int and not 0 <= headers[name] <= _MAX_COUNT:
            return f"the header {name!r} must be a count, not {_shown(value)}"
    for name in ("eta", "expires"):
        if headers.get(name) and not _is_time(headers[name]):
            return f"the header {name!r} must be a time in ISO 8601, not {_shown(headers[name])}"
    limits = headers.get("timelimit")
    if limits is not None and (len(limits) != 2 or not all(map(_is_limit, limits))):
        return (
            f"the header 'timelimit' must be [hard, soft] in seconds or null, not {_shown(limits)}"
        )
    return None


def _is_limit(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0 <= value <= _MAX_COUNT


def _is_time(text: str) -> bool:
    try:
        # In UTC too: at the ends of the calendar a time zone leads out of it.
        datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return False
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
