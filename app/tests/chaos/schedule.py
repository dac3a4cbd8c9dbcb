"""Which fault comes when: drawn from a seed, so that the same seed makes the same faults."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["KINDS", "Fault", "draw"]

#: What can happen, and how often in comparison.
KINDS = {
    "kill-worker": 4,
    "kill-child": 3,
    "kill-dispatcher": 2,
    "kill-at-join": 2,
    "freeze": 3,
    "kill-broker": 2,
    "cut": 2,
    "slow": 2,
}


#: Seconds that a fault takes besides how long it lasts: a broker catches up, a worker starts.
TAKES = {"kill-broker": 24.0, "kill-at-join": 14.0}


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        pause: Seconds to leave the system alone before it.
        kind: One of `KINDS`.
        target: Picks the worker or broker: a number, to be taken modulo how many there are.
        seconds: How long it lasts, where it lasts; after a join, how long until the kill.
        strength: Seconds that each piece of data is held up, where brokers are slow.
    """

    pause: float
    kind: str
    target: int
    seconds: float
    strength: float


def draw(
    seed: int, seconds: float, session_timeout: float, kinds: Collection[str] = tuple(KINDS)
) -> list[Fault]:
    """Draw faults for `seconds`, every kind once before any comes a second time: that at the least.

    Args:
        seed: What the faults follow from.
        seconds: How long they shall last together; with 0 every kind comes once, soon after another.
        session_timeout: Some freezes last longer than this, most don't.
        kinds: Which may come.
    """
    chance = random.Random(seed)
    deck = [kind for kind in KINDS if kind in kinds]
    weights = {kind: KINDS[kind] for kind in deck}
    chance.shuffle(deck)
    faults: list[Fault] = []
    total = 0.0
    while total < seconds or deck:
        kind = deck.pop() if deck else chance.choices([*weights], [*weights.values()])[0]
        pause = chance.uniform(0.5, 4 if seconds else 1.5)
        lasts = chance.uniform(0.5, 4)
        if kind == "freeze" and chance.random() < 0.3:
            lasts = session_timeout + chance.uniform(1, 4)
        if kind == "kill-at-join":
            lasts = chance.uniform(0, 1)
        fault = Fault(pause, kind, chance.randrange(60), lasts, chance.uniform(0.02, 0.2))
        faults.append(fault)
        total += pause + TAKES.get(kind, 0)
        if kind in ("freeze", "kill-broker", "slow"):
            total += lasts
        elif kind == "kill-at-join":
            total += session_timeout
    return faults
