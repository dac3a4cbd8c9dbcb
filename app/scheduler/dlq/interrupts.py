"""What to say to somebody who interrupted: the command that does the rest."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from scheduler.dlq.letters import LetterId

__all__ = ["command_to_go_on"]


def command_to_go_on(arguments: Sequence[str], last: LetterId | None) -> str:
    """Return the command that does the rest of an interrupted one.

    Args:
        arguments: What followed `scheduler` on the command line: `dlq`, `replay`, …
        last: The last letter dealt with, or None.
    """
    words, rest = list(arguments[:2]), iter(arguments[2:])
    for word in rest:
        if word == "--after":
            next(rest, None)
        elif not word.startswith("--after="):
            words.append(word)
    if last is not None:
        words[2:2] = ["--after", str(last)]
    return shlex.join(["scheduler", *words])
