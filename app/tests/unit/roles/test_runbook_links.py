"""Panels lead to the pages of their alerts, where these can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.promql import DASHBOARDS, ROOT


@pytest.fixture(scope="session")
def links(from_role: Callable[[str], ModuleType]) -> ModuleType:
    return from_role("grafana/filter_plugins/runbook_links.py")


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_each_link_leads_to_a_page(links: ModuleType, file: Path) -> None:
    led = links.runbook_links(file.read_text(), "https://git.example.com/main/")
    pages = re.findall(r'"https?://git.example.com/main/([^"]+)"', led)
    assert pages
    assert all((ROOT / page).is_file() for page in pages)
    assert links.READ_AT not in led


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_without_an_address_there_are_none(links: ModuleType, file: Path) -> None:
    given, plain = file.read_text(), links.runbook_links(file.read_text(), "")
    assert "://" not in plain
    for board in (before := json.loads(given), after := json.loads(plain)):
        for panel in board["panels"]:
            panel.pop("links", None)
    assert before == after
