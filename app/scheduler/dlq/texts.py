"""Text of letters as it may be shown: nothing in it can act on a terminal, and secrets are covered."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from typing import Any

from scheduler.dlq.letters import Letter

__all__ = ["REDACTED", "age", "body", "plain", "redact", "redact_text"]

#: What stands where a secret was.
REDACTED = "[redacted]"

_SENSITIVE = (
    r"[\w.-]*(?:passw(?:or)?d|passwd|passphrase|secret|token|api[_-]?key|apikey|authorization"
    r"|credential|private[_-]?key|cookie|cvv|iban)[\w.-]*"
)
_SENSITIVE_NAME = re.compile(_SENSITIVE, re.IGNORECASE)
#: `'password': 'x'`, `"token": "y"`, `api_key=z`.
_SENSITIVE_PAIR = re.compile(
    rf"""(['"]?\b{_SENSITIVE}['"]?\s*[:=]\s*)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,;)}}\]]+)""",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(\w[\w+.-]*://[^\s:/@]*:)[^\s/@]+(@)")

#: Celery's signed messages: parts joined by this, then base64.
_SIGNED_TYPE = "application/data"
_SIGNED_SEPARATOR = b"\x00\x01"

_KEPT = {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
         "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs"}  # fmt: skip


def plain(text: str, *, lines: bool = False) -> str:
    """Return `text` with everything escaped that a terminal might obey or reorder.

    Args:
        text: Anybody's text.
        lines: Keep line breaks and tabs.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_char(char, lines) for char in text)


def _char(char: str, lines: bool) -> str:
    if lines and char in "\n\t":
        return char
    if unicodedata.category(char) in _KEPT:
        return char
    return char.encode("unicode_escape").decode()


def redact(data: Any) -> Any:
    """Return decoded data with the values of what is named like a secret covered."""
    if isinstance(data, dict):
        return {
            name: REDACTED if _SENSITIVE_NAME.fullmatch(str(name)) else redact(value)
            for name, value in data.items()
        }
    if isinstance(data, list):
        return [redact(value) for value in data]
    return _URL_PASSWORD.sub(rf"\g<1>{REDACTED}\g<2>", data) if isinstance(data, str) else data


def redact_text(text: str) -> str:
    """Cover what looks like a secret in running text."""
    covered = _SENSITIVE_PAIR.sub(lambda found: f"{found[1]}{REDACTED}", text)
    return _URL_PASSWORD.sub(rf"\g<1>{REDACTED}\g<2>", covered)


def body(letter: Letter, *, reveal: bool = False, limit: int = 100_000) -> tuple[str, str]:
    """Return a letter's body as text and a note on what it is.

    Args:
        letter: A whole letter.
        reveal: Show secrets too.
        limit: Characters after which the text is cut.
    """
    if letter.value is None:
        return "", "the record has no value"
    if "value" in letter.omitted:
        return "", "too large for the dead letter topic: the original is where dlq-topic says"
    raw, note = letter.value, letter.content_type
    if letter.content_type == _SIGNED_TYPE:
        raw, note = _unwrap_signed(raw)
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        text, kind = _undecoded(raw)
        note = f"{note}, {kind}"
        text = text if reveal else redact_text(text)
    else:
        data = data if reveal else redact(data)
        text = json.dumps(data, indent=2, ensure_ascii=False)
    if len(text) > limit:
        text, note = text[:limit], f"{note}, cut: {len(text):,} characters in all"
    return text, note


def _unwrap_signed(raw: bytes) -> tuple[bytes, str]:
    """The body within one of Celery's signed messages; the signature is not looked at."""
    try:
        parts = base64.b64decode(raw, validate=True).split(_SIGNED_SEPARATOR, 4)
    except ValueError:
        parts = []
    if len(parts) != 5:
        return raw, "signed, but not as Celery signs"
    return parts[4], "signed (the signature is not checked here)"


def _undecoded(raw: bytes) -> tuple[str, str]:
    try:
        return raw.decode(), "not JSON"
    except UnicodeDecodeError:
        rows = [raw[start : start + 16] for start in range(0, min(len(raw), 1024), 16)]
        dump = "\n".join(
            f"{number * 16:08x}  {row.hex(' '):47}  "
            + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            for number, row in enumerate(rows)
        )
        cut = f", the first 1024 of {len(raw):,} bytes" if len(raw) > 1024 else ""
        return dump, f"binary{cut}"


def age(seconds: float) -> str:
    """Say a length of time in a short word: `41s`, `5m`, `3h`, `2d`."""
    for limit, size, unit in ((100, 1, "s"), (6000, 60, "m"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / size:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"
