"""Look at Grafana as a person does: log in, open each dashboard, take its picture.

    GRAFANA_PASSWORD=… grafana_pages.py https://monitor1:3000 172.18.0.5 DASHBOARDS PICTURES

The name is looked up at the address given, which this host need not know otherwise. Prints what was seen, as
JSON; exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, Response, expect, sync_playwright

#: The marks that Grafana's own tests go by (its package e2e-selectors, from 10.3 on).
USER = "data-testid Username input field"
PASSWORD = "data-testid Password input field"  # noqa: S105
LOG_IN = "data-testid Login button"
PANEL = "data-testid Panel header {}"
#: A query that failed, and a panel without data.
FAULTS = ("data-testid Panel status error", "data-testid Panel data error message")
#: Pixels of one row of a dashboard's grid, and of what stands above it.
ROW, ABOVE = 38, 300
#: Milliseconds that a page may take: two cores, and Grafana's first page is large.
PATIENCE = 90_000

FETCH = "async path => { const answer = await fetch(path); return await answer.json() }"


def log_in(page: Page, url: str, password: str) -> None:
    """Be led to the login, and get in."""
    page.goto(url)
    expect(page).to_have_url(re.compile("/login"))
    page.get_by_test_id(USER).fill("admin")
    page.get_by_test_id(PASSWORD).fill(password)
    page.get_by_test_id(LOG_IN).click()
    expect(page).not_to_have_url(re.compile("/login"))


def provisioned(page: Page, boards: list[dict[str, Any]]) -> Iterator[str]:
    """Name what Grafana has not taken from its files."""
    found = {each["uid"]: each for each in page.evaluate(FETCH, "/api/search?type=dash-db")}
    wanted = {board["uid"]: board["title"] for board in boards}
    if {uid: each["title"] for uid, each in found.items()} != wanted:
        yield f"The dashboards are {sorted(found)}, and not {sorted(wanted)}."
    for uid, each in found.items():
        if each.get("folderTitle") != "Celery on Kafka":
            yield f"{uid} lies in {each.get('folderTitle')!r}."
    health = page.evaluate(FETCH, "/api/datasources/uid/prometheus/health")
    if health.get("status") != "OK":
        yield f"The data source says {health}."


def open_board(
    page: Page, url: str, board: dict[str, Any], answers: list[Response]
) -> Iterator[str]:
    """Open a dashboard, wait until it is drawn, and name what is wrong with it.

    Arguments:
        page: where somebody is logged in.
        url: Grafana's.
        board: the dashboard as it was provisioned.
        answers: where the page's listener puts all answers.
    """
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    # Panels out of sight are not drawn.
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    page.set_viewport_size({"width": 1600, "height": rows * ROW + ABOVE})
    answers.clear()
    page.goto(f"{url}/d/{board['uid']}?from=now-30m&to=now&kiosk")
    try:
        expect(page).to_have_title(re.compile(rf"^{re.escape(board['title'])}\b"))
    except AssertionError:
        yield f"{board['title']}: the page is titled {page.title()!r}."
    for title, number in Counter(panel["title"] for panel in panels).items():
        yield from (f"{board['title']}: {fault}" for fault in drawn(page, title, number))
    queries = [answer for answer in answers if "/api/ds/query" in answer.url]
    if not queries:
        yield f"{board['title']}: nothing was queried."
    for answer in queries:
        results = answer.json().get("results", {}) if answer.ok else {}
        wrong = [result["error"] for result in results.values() if result.get("error")]
        if wrong or not answer.ok:
            yield f"{board['title']}: a query was answered with {answer.status} {wrong}."


def drawn(page: Page, title: str, number: int) -> Iterator[str]:
    """Name what is wrong with the panels of a title: one is missing, is empty, or says that it failed."""
    shown = page.get_by_test_id(PANEL.format(title))
    try:
        expect(shown).to_have_count(number)
        # Besides its title, a number, or the legend of its lines.
        expect(shown).to_have_text([re.compile(rf"{re.escape(title)}\s*\S")] * number)
    except AssertionError:
        yield f"{title}: shows {shown.all_inner_texts()}."
    for fault in FAULTS:
        for mark in shown.get_by_test_id(fault).all():
            yield f"{title}: {mark.get_attribute('aria-label') or mark.inner_text() or fault}"


def main(url: str, address: str, dashboards: str, pictures: str) -> int:
    """Return 1 if anything is wrong."""
    boards = [json.loads(file.read_text()) for file in sorted(Path(dashboards).glob("*.json"))]
    expect.set_options(timeout=PATIENCE)
    faults: list[str] = []
    taken: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", f"--host-resolver-rules=MAP {urlsplit(url).hostname} {address}"],
        )
        # That its certificate is good was asked on its host, where the authority is known.
        page = browser.new_page(ignore_https_errors=True)
        page.set_default_timeout(PATIENCE)
        answers: list[Response] = []
        page.on("response", lambda answer: answers.append(answer))
        log_in(page, url, os.environ["GRAFANA_PASSWORD"])
        version = page.evaluate(FETCH, "/api/health").get("version")
        faults += provisioned(page, boards)
        for board in boards:
            faults += open_board(page, url, board, answers)
            picture = Path(pictures) / f"{board['uid']}.png"
            page.screenshot(path=picture)
            taken.append(str(picture))
        browser.close()
    json.dump({"grafana": version, "faults": faults, "pictures": taken}, sys.stdout, indent=1)
    return 1 if faults or not taken else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
