"""What a dispatcher has done, for tests and metrics."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("Statistics",)


@dataclass
class Statistics:
    """What a dispatcher has done since it began.

    Attributes:
        active: whether it is the one at work.
        forwarded: messages that were due, and went to their topics.
        hops: messages that went to another level.
        revoked: messages that went to be discarded.
        dead_letters: messages that could not be forwarded.
        transactions: how many all of that took.
        late_ms_total: sum of how late the forwarded ones were, in milliseconds.
        late_ms_max: the latest of them.
        waiting: messages that are yet to be forwarded, as it was a few seconds ago (transactions' ends
            count a few more); 0 unless it is at work.
    """

    active: bool = False
    forwarded: int = 0
    hops: int = 0
    revoked: int = 0
    dead_letters: int = 0
    transactions: int = 0
    late_ms_total: int = 0
    late_ms_max: int = 0
    waiting: int = 0
