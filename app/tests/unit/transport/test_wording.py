"""Numbers in sentences."""

from __future__ import annotations

import pytest

from kombu_kafka.wording import counted


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 letters"), (1, "1 letter"), (2, "2 letters"), (1000, "1,000 letters")],
)
def test_one_is_no_plural(number: int, said: str) -> None:
    assert counted(number, "letter") == said
