"""Letters as people see them (tables that fit the terminal) and as programs do (plain data)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from scheduler.dlq.history import Act
from scheduler.dlq.index import Entry
from scheduler.dlq.letters import Letter, LetterId
from scheduler.dlq.outgoing import moment
from scheduler.dlq.statistics import Group, rates
from scheduler.dlq.texts import age, body, plain, redact_text

__all__ = ["as_data", "history_table", "letter_page", "letters_table", "stats_page", "whole_data"]

_BARS = " ▁▂▃▄▅▆▇█"
#: Columns of a terminal in which a list has all it can tell.
WIDE = 120
_STATE_STYLES = {"new": "", "replayed": "green", "skipped": "dim"}


def letters_table(entries: Iterable[Entry], *, width: int = WIDE, reveal: bool = False) -> Table:
    """Return a row for each letter: the columns that a terminal of `width` has room for, and whose
    cells differ; what is too long is cut.
    """
    entries, now = list(entries), time.time()
    wide = width >= WIDE
    # Name, how it is written, its share of the room that is left, whether it is shown.
    columns: list[tuple[str, Callable[[Letter], str | Text], int | None, bool]] = [
        ("id", lambda letter: str(letter.id), None, True),
        ("failed", lambda letter: f"{age(now - letter.failed_at)} ago", None, True),
        ("state", lambda letter: states[letter.id], None, any(e.state != "new" for e in entries)),
        ("task", lambda letter: _cell(letter.task), 3, True),
        ("reason", lambda letter: _cell(letter.reason), None, wide),
        ("exception", lambda letter: _exception(letter, wide=wide), 2, True),
        ("message", lambda letter: _cell(letter.message if reveal else redact_text(letter.message)), 4, True),
        ("from", lambda letter: _cell(_from(letter)), 2, wide),
        ("replays", lambda letter: str(letter.replays or ""), None, any(e.letter.replays for e in entries)),
    ]  # fmt: skip
    states = {
        entry.letter.id: Text(entry.state, style=_STATE_STYLES.get(entry.state, ""))
        for entry in entries
    }
    shown = [column for column in columns if column[3]]
    table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
    for name, _, ratio, _ in shown:
        right = name in ("failed", "replays")
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=ratio,
                         justify="right" if right else "left")  # fmt: skip
    for entry in entries:
        table.add_row(*(write(entry.letter) for _, write, _, _ in shown))
    return table


def letter_page(entry: Entry, letter: Letter, *, width: int = WIDE, reveal: bool) -> RenderableType:
    """Return all there is to know of a letter."""
    cover = str if reveal else redact_text
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in (
        ("letter", str(letter.id)),
        ("state", entry.state),
        ("task", letter.task),
        ("task id", letter.task_id),
        ("reason", f"{letter.reason}{f' ({letter.kind})' if letter.kind else ''}"),
        ("exception", letter.exception),
        ("message", cover(letter.message)),
        ("from", _from(letter)),
        ("key", letter.key_text),
        ("queued", "" if not letter.timestamp else moment(letter.timestamp / 1000)),
        ("failed first", moment(letter.first_failed_at)),
        ("failed", moment(letter.failed_at)),
        ("attempts", letter.about.get("attempts", "")),
        ("replays", str(letter.replays)),
        ("worker", letter.about.get("worker", "")),
        ("owner", letter.about.get("owner", "")),
        ("omitted", ", ".join(letter.omitted)),
    ):
        if text:
            facts.add_row(name, _cell(text))
    headers = Table(box=None, show_header=False, pad_edge=False)
    headers.add_column(style="cyan", no_wrap=True)
    headers.add_column(overflow="fold")
    for name, raw in letter.headers:
        headers.add_row(_cell(name), _cell("" if raw is None else cover(_header(name, raw))))
    text, note = body(letter, reveal=reveal)
    parts: list[RenderableType] = [facts]
    parts += [_title("Headers"), headers] if letter.headers else []
    parts += [_title(f"Body ({note}, {letter.size:,} bytes)"), Text(plain(text, lines=True))]
    traceback = letter.about.get("traceback")
    if traceback:
        parts += [_title("Traceback"), Text(plain(cover(traceback), lines=True).rstrip())]
    if entry.acts:
        parts += [
            _title("History"),
            history_table([(letter.id, act) for act in entry.acts], width=width),
        ]
    return Lines(*parts)


def stats_page(
    groups: Sequence[Group], entries: Sequence[Entry], now: float, *, width: int = WIDE
) -> RenderableType:
    """Return counts by task and exception, and how many failed in each of the last 24 hours."""
    table = Table(
        box=None, pad_edge=False, header_style="bold", expand=True, width=min(width, WIDE)
    )
    for name, ratio in (("task", 3), ("exception", 2)):
        table.add_column(name, overflow="ellipsis", no_wrap=True, ratio=ratio)
    for name in ("new", "replayed", "skipped", "oldest new", "last"):
        table.add_column(name, justify="right", no_wrap=True)
    bar = 20 if width >= WIDE else 0
    if bar:
        table.add_column("", no_wrap=True, width=bar)
    most = max((group.states["new"] for group in groups), default=0)
    for group in groups:
        new = group.states["new"]
        cells: list[str | Text] = [
            _cell(group.task),
            _cell(group.exception),
            *(str(group.states[state] or "") for state in ("new", "replayed", "skipped")),
            "" if group.oldest is None else age(now - group.oldest),
            age(now - group.newest),
        ]
        if bar:
            cells.append(Text("█" * (max(1, round(bar * new / most)) if new else 0), style="red"))
        table.add_row(*cells)
    hours = rates(entries, now)
    top = max(hours)
    chart = "".join(_BARS[-(-count * 8 // top)] if top else " " for count in hours)
    return Lines(
        table,
        Text(),
        Text(f"Failed in each of the last 24 hours, {top} at most, {hours[-1]} in the last:"),
        Text(f"│{chart}│ {sum(hours)} in all", style="red"),
    )


def history_table(acts: Iterable[tuple[LetterId, Act]], *, width: int = WIDE) -> Table:
    """Return a row for each act; in a narrow terminal what was done is told in one column."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("when", "letter", "act"):
        table.add_column(name, no_wrap=True)
    rest = ("by", "to", "why", "task", "note") if width >= WIDE else ("by, to, why",)
    for name in rest:
        table.add_column(name, overflow="fold")
    for letter, act in acts:
        told: tuple[str, ...] = (act.by, act.to, act.why, act.task, act.note)
        if width < WIDE:
            to, note = act.to and f" to {act.to}", act.note and f" ({act.note})"
            told = (f"{act.by}{to}{note}{act.why and ': '}{act.why}",)
        table.add_row(moment(act.at), str(letter), *map(_cell, (act.act, *told)))
    return table


def as_data(entry: Entry, *, reveal: bool = False) -> dict[str, Any]:
    """Return what a list tells of a letter, for programs."""
    letter = entry.letter
    return {
        "id": str(letter.id),
        "state": entry.state,
        "task": letter.task,
        "task_id": letter.task_id,
        "reason": letter.reason,
        "kind": letter.kind or None,
        "exception": letter.exception or None,
        "message": letter.message if reveal else redact_text(letter.message),
        "topic": letter.topic or None,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp,
        "key": None if letter.key is None else letter.key_text,
        "first_failed_at": letter.first_failed_at,
        "failed_at": letter.failed_at,
        "attempts": letter.attempts,
        "replays": letter.replays,
        "worker": letter.about.get("worker"),
        "owner": letter.about.get("owner"),
        "size": letter.size,
        "omitted": list(letter.omitted),
        "acts": [act.as_dict() for act in entry.acts],
    }


def whole_data(entry: Entry, letter: Letter, *, reveal: bool) -> dict[str, Any]:
    """Return all there is to know of a letter, for programs."""
    cover = str if reveal else redact_text
    text, note = body(letter, reveal=reveal)
    return {
        **as_data(Entry(letter, entry.acts, entry.state), reveal=reveal),
        "headers": [
            [name, None if raw is None else cover(_header(name, raw))]
            for name, raw in letter.headers
        ],
        "body": text,
        "body_is": note,
        "traceback": cover(letter.about.get("traceback", "")) or None,
    }


def _header(name: str, raw: bytes) -> str:
    text = raw.decode(errors="replace")
    return text if len(text) <= 2000 else f"{text[:2000]}… ({len(text):,} characters)"


def _exception(letter: Letter, *, wide: bool) -> Text:
    """The exception; in a narrow table the reason where there was none."""
    text = letter.exception or ("" if wide else letter.reason)
    return Text(plain(text), style="red" if letter.kind == "hard" else "")


def _from(letter: Letter) -> str:
    if not letter.topic:
        return ""
    return f"{letter.topic}-{letter.about.get('partition', '?')} @{letter.about.get('offset', '?')}"


def _cell(text: str) -> Text:
    return Text(plain(text))


def _title(text: str) -> Text:
    return Text(f"\n{plain(text)}", style="bold underline")
