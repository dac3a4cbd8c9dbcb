"""Failing over from one broker URL to the next (``kafka://a//t;kafka://b//t``).

kombu hands a URL whole to a transport that can parse it, but for the one it switches to: that one it
takes apart itself, and a URL with several hosts is none to it. So its parser, as
:class:`kombu.Connection` knows it, leaves ``kafka://`` alone.
"""

from __future__ import annotations

from typing import Any

import kombu.connection
from kombu.utils.url import parse_url

__all__ = ("teach_kombu",)


def _parse_url(url: str) -> dict[str, Any]:
    """Take a URL apart as kombu does; ours stays whole."""
    if url.startswith("kafka://"):
        return {"transport": "kafka", "hostname": url}
    return parse_url(url)  # type: ignore[no-any-return]


def teach_kombu() -> None:
    """Have ``Connection.switch`` take our URLs; may be called again."""
    kombu.connection.parse_url = _parse_url
