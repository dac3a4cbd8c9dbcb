"""Numbers in sentences."""

from __future__ import annotations

__all__ = ("counted",)


def counted(number: int, noun: str) -> str:
    """Return a number of things: ``1 letter``, ``2 letters``, ``1,000 letters``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
