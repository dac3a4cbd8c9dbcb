"""The page for users says of every option what the code says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from kombu_kafka.options import Options

PAGE = Path(__file__).parents[4] / "docs" / "transport.md"


def test_every_option_is_in_the_table_with_its_default() -> None:
    text = PAGE.read_text()
    table = text[text.index("| option | default |") : text.index("## Later")]
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)`", table, re.MULTILINE))
    documented_elsewhere = {name for name in Options.__annotations__ if name == "hosts"}
    own = {
        field.name: repr(field.default).replace("'", '"')
        for field in fields(Options)
        if field.name in Options.__annotations__ and field.name not in documented_elsewhere
    }
    assert rows == own


def test_the_options_of_security_are_on_the_page() -> None:
    text = PAGE.read_text()
    missing = [field.name for field in fields(Options) if f"`{field.name}`" not in text]
    assert [name for name in missing if name != "hosts"] == []
