"""The page, in a real browser and by hand: who gets in, what is shown, what is done."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import expect, sync_playwright

from scheduler import processes
from scheduler.dlq.web.gate import FAILURES, Passwords, hash_password
from scheduler.dlq.web.pages import make_app

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

#: Milliseconds that a page may take: the first replay of all has the brokers make topics of their own.
PAGE_MS = 120_000

PASSWORD = "correct horse battery"
EVIL = "<script>document.title='owned'</script>\x1b[2J\u202e"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "passwords"
    path.write_text(f"# who may see letters\n{hash_password('anna', PASSWORD)}\n")
    path.chmod(0o600)
    return path


@contextmanager
def _serve(letters: Any, *args: str) -> Iterator[str]:
    port = processes.free_port()
    command = [str(Path(sys.executable).with_name("scheduler")), "dlq", "web", *args]
    process = subprocess.Popen(
        [*command, "--listen", f"127.0.0.1:{port}"],
        env={**os.environ, **letters.environ}, stderr=subprocess.PIPE, text=True,
        preexec_fn=processes.dies_with_parent(),
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr:
        assert "Dead letters on http://127.0.0.1" in process.stderr.readline()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            code = processes.stop(process, 60)  # type: ignore[arg-type]
        assert code == 0


@pytest.fixture
def _patience() -> Iterator[None]:
    expect.set_options(timeout=PAGE_MS)
    yield
    expect.set_options(timeout=None)


@pytest.mark.usefixtures("_patience")
def test_in_a_browser(letters: Any, password_file: Path, tmp_path: Path) -> None:
    letters.write(2, failed_at=time.time() - 7200, partition=1, key=b"order-42", kind="hard",
                  traceback="Traceback (most recent call last):\n  raise ValueError('no such order')")  # fmt: skip
    letters.write(
        1, task="shop.mail", exception=EVIL, message=EVIL, traceback=EVIL, reason="time-limit"
    )
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    serve = _serve(letters, "--password-file", str(password_file), "--allow-changes")
    with serve as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"], timeout=PAGE_MS
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PAGE_MS)
        faults: list[str] = []
        page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda told: faults.append(str(told)))
        page.goto(url)
        page.get_by_label("Name").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()

        expect(page.locator("tbody tr")).to_have_count(3)
        expect(page.locator("tbody")).to_contain_text("<script>")
        expect(page.locator("tbody")).to_contain_text("\\x1b[2J\\u202e")
        page.screenshot(path=shots / "list.png", full_page=True)
        page.get_by_label("Task", exact=True).fill("shop.c*")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("tbody tr")).to_have_count(2)

        page.get_by_role("link", name="0-0").click()
        expect(page.locator("dl")).to_contain_text("order-42")
        expect(page.locator("main")).to_contain_text("raise ValueError")
        page.screenshot(path=shots / "letter.png", full_page=True)
        page.get_by_role("button", name="Replay…").click()
        expect(page.get_by_role("heading")).to_have_text("Replay 1 letter?")
        assert letters.read(letters.topic) == [], "nothing happens before it is confirmed"
        page.get_by_label("Why").fill("the shop is back")
        page.screenshot(path=shots / "confirm.png", full_page=True)
        page.get_by_role("button", name="Replay").click()
        expect(page.get_by_role("status")).to_have_text("1 replayed.")
        expect(page.locator("tbody tr")).to_have_count(2)

        page.get_by_label("Choose letter 0-1").check()
        page.get_by_role("button", name="Skip…").click()
        page.get_by_label("Why").fill("paid by hand")
        page.get_by_role("button", name="Skip").click()
        page.get_by_label("all 1 meant by the filter").check()
        page.get_by_role("button", name="Replay…").click()
        page.get_by_role("button", name="Replay").click()
        expect(page.get_by_role("status")).to_have_text("1 replayed.")

        page.get_by_role("link", name="History").click()
        expect(page.locator("tbody tr")).to_have_count(3)
        expect(page.locator("tbody")).to_contain_text("anna (web)")
        page.get_by_role("link", name="List").click()
        expect(page.locator("main")).to_contain_text("Nothing is left to do")
        page.get_by_label("State").select_option("all")
        page.get_by_role("button", name="Filter").press("Enter")
        page.set_viewport_size({"width": 380, "height": 700})
        expect(page.locator("tbody tr")).to_have_count(3)
        page.wait_for_load_state("load")  # its style too
        assert page.evaluate("document.documentElement.scrollWidth") == 380
        assert page.evaluate("document.querySelector('.wide').scrollWidth") <= 380
        page.screenshot(path=shots / "narrow.png", full_page=True)
        page.set_viewport_size({"width": 1280, "height": 800})
        page.reload()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.get_by_role("link", name="Statistics").click()
        page.screenshot(path=shots / "stats.png", full_page=True)
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading")).to_have_text("Log in")
        assert page.title() != "owned"
        assert faults == []
        browser.close()
    (act,) = letters.json("history", "0-0")
    assert (act["by"], act["why"]) == ("anna (web)", "the shop is back")
    assert len(letters.read(letters.topic)) == 2


def _client(letters: Any, password_file: Path, **settings: bool) -> FlaskClient:
    return make_app(letters.options, Passwords(password_file), **settings).test_client()


def _token(client: FlaskClient, path: str = "/login") -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def _login(client: FlaskClient) -> str:
    data = {"csrf": _token(client), "name": "anna", "password": PASSWORD}
    assert client.post("/login", data=data).status_code == 303
    return _token(client, "/history")


def test_nobody_gets_in_without_a_password(letters: Any, password_file: Path) -> None:
    client = _client(letters, password_file, allow_changes=True)
    for path in ("/", "/letters/0-0", "/stats", "/history", "/no-such-page"):
        answer = client.get(path)
        assert (answer.status_code, answer.location) == (303, "/login"), path
    token = _token(client)
    for path in ("/act", "/confirm"):
        assert (
            client.post(path, data={"csrf": token, "act": "replay", "id": "0-0"}).location
            == "/login"
        )
    for name in ("anna", "nobody", "", "anna", "nobody"):
        answer = client.post("/login", data={"csrf": token, "name": name, "password": "wrong"})
        assert answer.status_code == 403
    data = {"csrf": token, "name": "anna", "password": PASSWORD}
    assert client.post("/login", data=data).status_code == 429, f"{FAILURES} failures are enough"


def test_forged_requests_are_refused(letters: Any, password_file: Path) -> None:
    letters.write(1)
    client = _client(letters, password_file, allow_changes=True)
    _login(client)
    for token in ({}, {"csrf": ""}, {"csrf": "guessed"}):
        for path in ("/act", "/confirm", "/logout", "/login"):
            assert (
                client.post(path, data={**token, "id": "0-0", "act": "replay"}).status_code == 400
            )
    assert letters.read(letters.topic) == []


def test_read_only_unless_allowed(letters: Any, password_file: Path) -> None:
    letters.write(1)
    client = _client(letters, password_file)
    token = _login(client)
    page = client.get("/").text
    assert "read-only" in page
    assert "Replay…" not in page
    for path in ("/confirm", "/act"):
        data = {"csrf": token, "id": "0-0", "act": "replay"}
        assert client.post(path, data=data).status_code == 403
    assert letters.read(letters.topic) == []


def test_what_browsers_must_hold_to(letters: Any, password_file: Path) -> None:
    client = _client(letters, password_file, behind_proxy=True)
    answer = client.get("/login", headers={"X-Forwarded-Proto": "https"})
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy, "there is no script at all"
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Strict-Transport-Security"]
    cookie = answer.headers["Set-Cookie"]
    for part in ("__Host-", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"):
        assert part in cookie
    assert "<script" not in answer.text


def test_wrong_requests_are_one_sentence(letters: Any, password_file: Path) -> None:
    letters.write(1)
    client = _client(letters, password_file, allow_changes=True)
    token = _login(client)
    for path, code in (("/letters/0-9", 404), ("/letters/x", 400), ("/?since=soon", 400),
                       ("/?partition=x", 400), ("/nowhere", 404), ("/?page=x", 200)):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == code, path
        assert "Traceback" not in answer.text
    data = {"csrf": token, "id": "0-0", "act": "skip", "why": " "}
    assert client.post("/act", data=data).status_code == 400
    assert letters.json("list")[0]["state"] == "new"


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        ("anna:secret\n", 0o600, "is no name:hash"),
        ("", 0o600, "is empty"),
        ("anna:scrypt:x\n", 0o644, "may be read by anybody"),
    ],
)
def test_password_files_that_can_not_be_used(
    letters: Any, tmp_path: Path, content: str, mode: int, says: str
) -> None:
    path = tmp_path / "passwords"
    path.write_text(content)
    path.chmod(mode)
    assert says in letters.run("web", "--password-file", str(path), code=78).stderr


def test_beyond_loopback_only_behind_a_proxy(letters: Any, password_file: Path) -> None:
    for listen in ("0.0.0.0:8085", "192.0.2.1:8085", "[::]:8085"):
        args = ("web", "--password-file", str(password_file), "--listen", listen)
        assert "in clear" in letters.run(*args, code=2).stderr


def test_password_makes_a_line_that_works(letters: Any, tmp_path: Path) -> None:
    line = letters.run("password", "ben", "--password", PASSWORD).stdout
    path = tmp_path / "passwords"
    path.write_text(line)
    path.chmod(0o600)
    passwords = Passwords(path)
    assert passwords.check("ben", PASSWORD)
    assert not passwords.check("ben", PASSWORD + "x")
    assert not passwords.check("nobody", PASSWORD)
    letters.run("password", "ben", "--password", "short", code=2)
