"""The commands of `scheduler dlq` that change something, and those that move letters."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from kombu_kafka.wording import counted
from scheduler.dlq.cli import (
    EX_DATAERR,
    NOTHING,
    REFUSED,
    Failure,
    Session,
    Usage,
    as_json,
    filtered,
    nothing,
    session,
    stderr,
    stdout,
)
from scheduler.dlq.desk import person
from scheduler.dlq.filters import Filter
from scheduler.dlq.index import Entry
from scheduler.dlq.interrupts import command_to_go_on
from scheduler.dlq.letters import LetterId
from scheduler.dlq.outgoing import MAX_REPLAYS, Changes
from scheduler.dlq.replay import Order, Outcome
from scheduler.dlq.replay import replay as replay_letters
from scheduler.dlq.replay import skip as skip_letters
from scheduler.dlq.texts import plain
from scheduler.stopping import stoppable

__all__ = ["COMMANDS"]

#: Refusals that are told one by one.
TOLD = 20

by = click.option("--by", help="Who does it. [default: the one who logged in]")
every = click.option("--all", "every", is_flag=True, help="All of them; without it, choose.")
yes = click.option("--yes", "-y", is_flag=True, help="Don't ask.")


@click.command()
@filtered("new")
@every
@click.option("--to-topic", help="Where to, instead of the topic it was consumed from.")
@click.option("--to-partition", type=click.IntRange(0), help="The partition there.")
@click.option("--by-key", is_flag=True, help="The key chooses the partition, not where it was.")
@click.option("--args", "new_args", help="Other arguments: a JSON list.")
@click.option("--kwargs", "new_kwargs", help="Other keyword arguments: a JSON object.")
@click.option(
    "--without-expiry", is_flag=True, help="Also what has expired, which a worker would drop."
)
@click.option("--reset-retries", is_flag=True, help="Let tasks retry as often as if they were new.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Letters a second, at most.")
@click.option(
    "--force",
    is_flag=True,
    help=f"Also what was replayed or skipped before, or replayed {MAX_REPLAYS} times.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--why", default="", help="The reason, for the history.")
@by
@yes
@as_json
def replay(
    choice: Filter, every: bool, to_topic: str | None, to_partition: int | None, by_key: bool,
    new_args: str | None, new_kwargs: str | None, without_expiry: bool, reset_retries: bool, rate: float | None,
    force: bool, dry_run: bool, why: str, by: str | None, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Queue letters' tasks again: by ids, by filters, or --all.

    A letter is replayed once. Record and history are written in one transaction, so a killed
    command, run again, goes on where it stopped. ^C ends it after the batch in hand.
    """
    _require_choice(choice, every)
    changes = Changes(
        topic=to_topic,
        partition=to_partition,
        by_key=by_key,
        args=_json_option("--args", new_args, list),
        kwargs=_json_option("--kwargs", new_kwargs, dict),
        without_expiry=without_expiry,
        reset_retries=reset_retries,
    )
    order = Order(
        by=by or person(), why=why, changes=changes, force=force, rate=rate, dry_run=dry_run
    )
    with session() as opened:
        ids = _chosen(opened, choice)
        if not dry_run and (not choice.ids or len(ids) > 1):
            _confirm(f"Replay {counted(len(ids), 'letter')} of {opened.topic}?", yes)
        columns = (
            TextColumn("replaying"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns, console=stderr, transient=True, disable=not stderr.is_terminal
        ) as bar:
            task = bar.add_task("", total=len(ids))
            with stoppable() as stop:
                outcome = replay_letters(
                    opened.options, opened.reader, opened.index, ids, order,
                    lambda done, _: bar.update(task, completed=done), stop,
                )  # fmt: skip
    _tell(outcome, "would be replayed" if dry_run else "replayed", as_json, dry_run=dry_run)
    if outcome.stopped:
        raise Failure(
            f"Interrupted after {outcome.dealt_with:,} of {counted(len(ids), 'letter')}; to go on:"
            f" {command_to_go_on(sys.argv[1:], outcome.last or choice.after)}",
            128 + stop.number,
        )


@click.command()
@filtered("new")
@every
@click.option("--why", required=True, help="The reason: kept with who and when.")
@by
@yes
@as_json
def skip(choice: Filter, every: bool, why: str, by: str | None, yes: bool, as_json: bool) -> None:
    """Mark letters as needing no replay: they are listed no more unless asked for."""
    _require_choice(choice, every)
    if not why.strip():
        raise Usage("--why is empty: say why these letters need no replay.")
    with session() as opened:
        ids = set(_chosen(opened, choice))
        if not choice.ids or len(ids) > 1:
            _confirm(f"Skip {counted(len(ids), 'letter')} of {opened.topic}?", yes)
        found = {entry.letter.id: entry for entry in opened.index.entries()}
        entries = [found[one] for one in sorted(ids) if one in found]
        outcome = skip_letters(
            opened.options, opened.reader, opened.index, entries, Order(by=by or person(), why=why)
        )
        outcome.refused += [(one, "there is no such letter") for one in sorted(ids - found.keys())]
    _tell(outcome, "skipped", as_json)


@click.command()
@filtered("all")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    help="A file. [default: standard output]",
)
def export(choice: Filter, output: str) -> None:
    """Write letters out, whole, one JSON object a line, bytes as base64. Secrets are in it."""
    from scheduler.dlq.transfer import export as lines_of

    with session() as opened:
        opened.index.refresh(choice.since)
        entries = choice.choose(opened.index.entries())
        if not entries:
            raise nothing(opened, opened.index.entries(), choice)
        written = 0
        with _private(output) as out:
            for line in lines_of(opened.reader, opened.topic, entries):
                out(line)
                written += 1
    stderr.print(f"{counted(written, 'letter')} exported.", highlight=False)


@click.command("import")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--force", is_flag=True, help="Also letters that are there, or were dealt with.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--why", default="", help="The reason, for the history.")
@by
@as_json
def import_(
    file: TextIO, force: bool, dry_run: bool, why: str, by: str | None, as_json: bool
) -> None:
    """Write exported letters back, byte for byte; what is there already is left out."""
    from scheduler.dlq.transfer import LineError, import_lines, parse

    try:
        lines = [parse(text, number) for number, text in enumerate(file, 1) if text.strip()]
    except (LineError, UnicodeDecodeError) as exc:
        raise Failure(f"{exc} Nothing was imported.", EX_DATAERR) from exc
    order = Order(by=by or person(), why=why, force=force, dry_run=dry_run)
    with session() as opened:
        outcome = import_lines(opened.options, opened.reader, opened.index, lines, order)
    _tell(outcome, "would be imported" if dry_run else "imported", as_json)


@click.command()
@click.option("--task", help="Only of this task; may hold * and ?.")
@click.option("--exception", help="Only of this exception; may hold * and ?.")
@click.option("--topic", help="Only those consumed from this topic.")
@click.option(
    "--every",
    type=click.FloatRange(0.1),
    default=15.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option(
    "--first",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Seconds a letter waits before its first replay.",
)
@click.option(
    "--factor",
    type=click.FloatRange(1),
    default=5.0,
    show_default=True,
    help="How much longer before each of the next.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Letters a second, at most.",
)
@click.option(
    "--by", default="scheduler dlq watch", show_default=True, help="The name in the history."
)
def watch(
    task: str | None, exception: str | None, topic: str | None, every: float, first: float,
    factor: float, rate: float, by: str,
) -> None:  # fmt: skip
    """Replay by itself what passes by itself, until told to stop.

    Only letters whose task declares the error as passing, later each time, and none that was
    replayed 3 times.
    """
    from scheduler.dlq import watch as engine

    def told(outcome: Outcome) -> None:
        if outcome.done:
            click.echo(f"{counted(len(outcome.done), 'letter')} replayed.")
        for letter, why in outcome.refused:
            click.echo(plain(f"{letter} is not replayed: {why}."), err=True)

    choice = Filter(task=task, exception=exception, topic=topic)
    order = Order(by=by, why="the error passes", rate=rate)
    with stoppable() as stop, session() as opened:
        engine.watch(
            opened.options, choice, engine.Backoff(first, factor), order,
            every=every, stop=stop, told=told,
        )  # fmt: skip


def _require_choice(choice: Filter, every: bool) -> None:
    if choice.narrows and every:
        raise Usage("Letters are chosen by ids or filters, or --all is given, not both.")
    if not choice.narrows and not every:
        raise Usage("No letter is named: give ids or filters, or --all for every one of them.")


def _chosen(opened: Session, choice: Filter) -> list[LetterId]:
    """The letters meant, in the order they lie; ids that aren't there are left in."""
    opened.index.refresh(choice.since)
    entries: list[Entry] = choice.choose(opened.index.entries())
    ids = {entry.letter.id for entry in entries}
    if not ids:
        raise nothing(opened, opened.index.entries(), choice)
    if choice.ids:
        ids |= choice.ids - {entry.letter.id for entry in opened.index.entries()}
    return sorted(ids)


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Usage(f"{question} Nobody is there to ask: add --yes.")
    if not click.confirm(question, err=True):
        raise Failure("Nothing was done.", 1)


def _tell(outcome: Outcome, done: str, as_json: bool, *, dry_run: bool = False) -> None:
    if as_json:
        for letter, where in outcome.done:
            click.echo(json.dumps({"id": str(letter), "result": done, "to": where or None}))
        for letter, why in outcome.refused:
            click.echo(json.dumps({"id": str(letter), "result": "refused", "why": why}))
    else:
        stdout.print(f"{counted(len(outcome.done), 'letter')} {done}.", highlight=False)
        for letter, where in outcome.done[:TOLD] if dry_run else ():
            stdout.print(Text(f"{letter} to {plain(where)}."), soft_wrap=True)
        for letter, why in outcome.refused[:TOLD]:
            stderr.print(Text(f"{letter} is refused: {plain(why)}."), soft_wrap=True)
        if len(outcome.refused) > TOLD:
            stderr.print(f"… and {len(outcome.refused) - TOLD} more are refused.", highlight=False)
    if outcome.refused and not outcome.stopped:
        raise SystemExit(REFUSED)


def _json_option(name: str, text: str | None, kind: type) -> Any:
    if text is None:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Usage(f"{name} is not JSON ({exc}).") from exc
    if not isinstance(data, kind):
        raise Usage(
            f"{name} must be a JSON {'list' if kind is list else 'object'}, not {text[:60]}."
        )
    return data


@contextmanager
def _private(output: str) -> Iterator[Callable[[str], None]]:
    """Write lines to a file that only its owner may read: what tasks were given may be secret."""
    if output == "-":
        yield click.echo
        return

    def opened(path: str, flags: int) -> int:
        descriptor = os.open(path, flags, 0o600)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, 0o600)  # one that was there may have been open to all
        return descriptor

    def write(line: str) -> None:
        with _written(output):
            file.write(line + "\n")

    with _written(output):
        file = open(output, "w", encoding="utf-8", opener=opened)  # noqa: SIM115
    try:
        yield write
    finally:
        with _written(output):
            file.close()


@contextmanager
def _written(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise Failure(f"{output} can't be written, or not whole: {exc.strerror}.", NOTHING) from exc


#: In the order of the help.
COMMANDS = (replay, skip, export, import_, watch)
