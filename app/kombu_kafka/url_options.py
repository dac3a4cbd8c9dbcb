"""Options that follow the ``?`` of a broker URL: text, made what the option is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .errors import ConfigurationError

__all__ = ("merge", "typed")

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def typed(pairs: Iterable[tuple[str, str]], types: Mapping[str, str]) -> dict[str, Any]:
    """Return a URL's options with the values they stand for.

    Arguments:
        pairs: names and texts, as they stand in the URL.
        types: type of each known option, as written in its class; others stay text.

    Raises:
        ConfigurationError: a text does not stand for a value of its option's type, or an option is
            named twice.
    """
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name in values:
            raise ConfigurationError(f"The broker URL names the option {name!r} twice: once is it.")
        try:
            values[name] = _value(text, types.get(name, "str"))
        except (KeyError, ValueError) as exc:
            raise ConfigurationError(
                f"The option {name}={text} of the broker URL is no {types[name]}."
            ) from exc
    return values


def merge(url: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a URL and of ``broker_transport_options`` together.

    Raises:
        ConfigurationError: they contradict each other; which was meant can't be known.
    """
    for name in url.keys() & given.keys():
        if given[name] is not None and given[name] != url[name]:
            shown = [repr(value[name]) for value in (url, given)]
            said, other = ["**", "another"] if "password" in name else shown
            raise ConfigurationError(
                f"The broker URL says {name}={said}, and broker_transport_options {other}: set it "
                f"in one place."
            )
    return {**given, **url}


def _value(text: str, kind: str) -> Any:
    if kind.startswith("tuple[int"):
        return [int(part) for part in text.split(",")]
    if kind.startswith("tuple["):
        return [part.strip() for part in text.split(",")]
    for name, make in (("bool", lambda t: _BOOLEANS[t.lower()]), ("int", int), ("float", float)):
        if kind.split(" | ")[0] == name:
            return make(text)
    return text
