"""Replay the letters of a key over the page, as a browser would: dlq_page.py URL NAME PASSWORD KEY"""

from __future__ import annotations

import html
import re
import ssl
import sys
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar


def main(url: str, name: str, password: str, key: str) -> None:
    """Print what the page says at the end."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    browser = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(CookieJar()),
        urllib.request.HTTPSHandler(context=trusting),
    )

    def ask(path: str, fields: list[tuple[str, str]] | None = None) -> str:
        data = None if fields is None else urllib.parse.urlencode(fields).encode()
        with browser.open(url + path, data, timeout=60) as answer:
            return str(answer.read().decode())

    def token(page: str) -> tuple[str, str]:
        found = re.search(r'name="csrf" value="([^"]+)"', page)
        assert found, page
        return "csrf", found[1]

    ask("/login", [token(ask("/login")), ("name", name), ("password", password)])
    listed = ask("/?" + urllib.parse.urlencode({"key": key}))
    ids = re.findall(r'type="checkbox" name="id" value="([0-9-]+)"', listed)
    assert ids, listed
    chosen = [token(listed), *(("id", one) for one in ids), ("act", "replay")]
    confirm = ask("/confirm", chosen)
    assert "Replay 1 letter?" in confirm, confirm
    done = ask("/act", [*chosen, ("why", "it is placed now")])
    print(html.unescape(" ".join(re.findall(r"<li>([^<]*)</li>", done))))


main(*sys.argv[1:])
