"""Priorities: a topic for each step of them, as kombu's Redis transport has a list for each.

The first step's topic is the queue's own. Lower numbers go first, and a message without a priority has 0.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence

from .errors import ConfigurationError

__all__ = ("HIGHEST", "check_steps", "step_of", "topic_of_step")

#: The number of the last priority; larger ones count as it.
HIGHEST = 9


def check_steps(steps: object) -> tuple[int, ...]:
    """Return steps as they may be set.

    Raises:
        ConfigurationError: they are no ascending list of numbers from 0 to 9 that begins with 0.
    """
    valid = (
        isinstance(steps, list | tuple)
        and all(type(step) is int and 0 <= step <= HIGHEST for step in steps)
        and list(steps) == sorted(set(steps))
        and (not steps or steps[0] == 0)
    )
    if not valid:
        raise ConfigurationError(
            f"The transport option 'priority_steps' must be a list of numbers from 0 to {HIGHEST} "
            f"that ascend and begin with 0, for example [0, 3, 6, 9], not {steps!r}."
        )
    return tuple(steps)  # type: ignore[arg-type]  # just seen to be one


def step_of(priority: object, steps: Sequence[int]) -> int:
    """Return the step that a message's priority belongs to; 0 where there are no steps."""
    if not steps or not isinstance(priority, int | str | float):
        return 0
    try:
        number = min(max(int(priority), 0), HIGHEST)
    except (ValueError, OverflowError):
        return 0
    return steps[bisect(steps, number) - 1]


def topic_of_step(topic: str, step: int) -> str:
    """Return where the messages of a step lie."""
    return f"{topic}.priority-{step}" if step else topic
