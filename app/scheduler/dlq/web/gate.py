"""Who may come in: passwords, sessions, tokens against forged requests, headers for browsers."""

from __future__ import annotations

import hmac
import secrets
import stat
import threading
import time
from collections import deque
from pathlib import Path

from flask import Flask, Response, abort, g, redirect, request, session, url_for
from werkzeug.security import check_password_hash, generate_password_hash
from werkzeug.wrappers import Response as AnyResponse

from kombu_kafka.errors import ConfigurationError

__all__ = ["Passwords", "Throttle", "csrf_token", "guard", "hash_password"]

#: How passwords are kept: slow to try, also for who has the file.
METHOD = "scrypt:32768:8:1"
#: Seconds a login lasts.
SESSION_SECONDS = 8 * 3600
#: Failed logins of one address, and of all together, in `WINDOW` seconds before more are refused.
FAILURES, ALL_FAILURES, WINDOW = 5, 50, 60.0
#: Addresses whose failures are remembered.
MAX_ADDRESSES = 1000

#: What may be loaded: our style sheet. No script, no frame, no form to elsewhere.
POLICY = (
    "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


def hash_password(name: str, password: str) -> str:
    """Return the line of the password file for somebody."""
    return f"{name}:{generate_password_hash(password, METHOD)}"


class Passwords:
    """The password file: a line `name:hash` for each person.

    Args:
        path: The file; only its owner (and group) may read it.

    Raises:
        ConfigurationError: It can't be used.
    """

    def __init__(self, path: Path) -> None:
        try:
            mode = path.stat().st_mode
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"The password file {path} can't be read: {exc}.") from exc
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise ConfigurationError(
                f"The password file {path} may be read by anybody on this host: chmod 0640 it."
            )
        self._hashes: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            name, _, hashed = line.strip().partition(":")
            if not name or name.startswith("#"):
                continue
            if not hashed.startswith(("scrypt:", "pbkdf2:")):
                raise ConfigurationError(
                    f"Line {number} of the password file {path} is no name:hash: make one with"
                    " 'scheduler dlq password NAME'."
                )
            self._hashes[name] = hashed
        if not self._hashes:
            raise ConfigurationError(
                f"The password file {path} is empty: add a line by 'scheduler dlq password NAME'."
            )
        # Somebody unknown takes as long to refuse as somebody known.
        self._nobody = generate_password_hash(secrets.token_hex(), METHOD)

    def check(self, name: str, password: str) -> bool:
        """Whether a person has this password, in constant time."""
        known = self._hashes.get(name)
        matches = check_password_hash(known or self._nobody, password)
        return matches and known is not None


class Throttle:
    """Refuses logins after too many that failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: dict[str, deque[float]] = {}
        self._all: deque[float] = deque(maxlen=ALL_FAILURES)

    def allows(self, address: str) -> bool:
        """Whether an address may try."""
        with self._lock:
            mine = self._failures.get(address, ())
            return _recent(mine) < FAILURES and _recent(self._all) < ALL_FAILURES

    def failed(self, address: str) -> None:
        """Remember a failure."""
        now = time.monotonic()
        with self._lock:
            if address not in self._failures and len(self._failures) >= MAX_ADDRESSES:
                del self._failures[next(iter(self._failures))]
            self._failures.setdefault(address, deque(maxlen=FAILURES)).append(now)
            self._all.append(now)


def _recent(times: deque[float] | tuple[float, ...]) -> int:
    limit = time.monotonic() - WINDOW
    return sum(one > limit for one in times)


def csrf_token() -> str:
    """Return this session's token, which every form carries."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(32)
    return str(session["csrf"])


def guard(app: Flask, *, secure: bool) -> None:
    """Have every request of `app` checked, and every answer carry what browsers must hold to.

    Args:
        app: The app.
        secure: It is reached through TLS: cookies go over nothing else.
    """
    app.config.update(
        SECRET_KEY=secrets.token_bytes(32),
        SESSION_COOKIE_NAME="__Host-dead-letters" if secure else "dead-letters",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=secure,
        MAX_CONTENT_LENGTH=1 << 20,
        MAX_FORM_PARTS=5000,
    )

    @app.before_request
    def check() -> AnyResponse | None:
        if request.endpoint == "static":
            return None
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            sent = request.form.get("csrf", "")
            if (
                not hmac.compare_digest(sent.encode(), str(session.get("csrf", "")).encode())
                or not sent
            ):
                abort(400, "This form is out of date: go back, reload the page and send it again.")
        g.person = session.get("person")
        if time.time() - float(session.get("since", 0)) > SESSION_SECONDS:
            g.person = None
        if g.person is None and request.endpoint != "login":
            return redirect(url_for("login"), 303)
        return None

    @app.after_request
    def headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        if request.endpoint == "static":
            response.headers["Cache-Control"] = "max-age=3600"
        if secure:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        return response
