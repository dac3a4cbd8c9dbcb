"""`scheduler dlq`: look at dead letters, replay them, skip them.

Exit codes: 0 done; 1 no letter is meant, or none is left; 2 the command is wrong; 3 some letters
were refused; 65 what was to be imported is no export; 69 the brokers can't be reached; 75 somebody
else took over; 78 a setting is wrong; 130 interrupted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from kombu_kafka.errors import BrokerUnavailableError, ConfigurationError, KombuKafkaError
from kombu_kafka.options import Options
from kombu_kafka.wording import counted
from scheduler.dlq.desk import FencedError
from scheduler.dlq.filters import SORTS, STATES, Filter, FilterError, parse_time, sort
from scheduler.dlq.index import Entry, Index
from scheduler.dlq.letters import LetterId, LetterIdError
from scheduler.dlq.outgoing import moment
from scheduler.dlq.reader import Reader
from scheduler.dlq.texts import plain
from scheduler.settings import Settings, SettingsError

__all__ = ["Failure", "Session", "Usage", "dlq", "filtered", "guarded", "read_options", "session"]

stdout = Console()
stderr = Console(stderr=True)

NOTHING, USAGE, REFUSED, EX_DATAERR, EX_UNAVAILABLE, EX_TEMPFAIL, EX_CONFIG = (
    1,
    2,
    3,
    65,
    69,
    75,
    78,
)
INTERRUPTED = 130

C = TypeVar("C", bound=Callable[..., Any])


class Failure(click.ClickException):
    """One sentence for people, a code for scripts."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        """Print the sentence."""
        text = Text.assemble(("scheduler: ", "bold red"), plain(self.message))
        stderr.print(text, highlight=False, soft_wrap=True)


class Usage(Failure):
    """The command is wrong."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, USAGE)


@dataclass
class Session:
    """What a command works with."""

    options: Options
    reader: Reader
    index: Index

    @property
    def topic(self) -> str:
        return self.options.dead_letter_topic


@contextmanager
def session() -> Iterator[Session]:
    """Connect as the environment says; turn every error of ours into a sentence and a code."""
    with guarded():
        options = read_options()
        with Reader(options) as reader:
            yield Session(options, reader, Index(options, reader))


def read_options() -> Options:
    """Return where the brokers and the dead letter topic are, as the environment says."""
    settings = Settings.from_environ(os.environ)
    return Options.of(
        settings.broker_url.split(";")[0],
        {
            "group_id": settings.group_id,
            "connect_timeout": settings.connect_timeout,
            "dead_letter_topic": settings.dead_letter_topic,
            "client_id": "scheduler-dlq",
            **settings.broker_security,
        },
    )


@contextmanager
def guarded() -> Iterator[None]:
    """Turn errors of ours into a sentence and a code."""
    try:
        yield
    except (SettingsError, ConfigurationError) as exc:
        raise Failure(str(exc), EX_CONFIG) from exc
    except BrokerUnavailableError as exc:
        raise Failure(str(exc), EX_UNAVAILABLE) from exc
    except FencedError as exc:
        raise Failure(str(exc), EX_TEMPFAIL) from exc
    except (FilterError, LetterIdError) as exc:
        raise Usage(str(exc)) from exc
    except KombuKafkaError as exc:
        raise Failure(str(exc), NOTHING) from exc
    except KeyboardInterrupt:
        raise Failure(
            "Interrupted; what was done 'scheduler dlq history' says.", INTERRUPTED
        ) from None


def filtered(default_state: str) -> Callable[[C], C]:
    """Give a command the options that choose letters; it gets a `Filter` as `choice`."""

    def decorate(command: C) -> C:
        @wraps(command)
        def wrapper(
            ids: tuple[str, ...], after: str | None, since: str | None, until: str | None,
            state: str, **rest: Any,
        ) -> Any:  # fmt: skip
            names = ("task", "exception", "reason", "kind", "topic", "partition", "key", "task_id")
            if state == "auto":  # whoever names letters means them whatever they are
                state = "all" if ids else default_state
            with guarded():
                choice = Filter(
                    ids=frozenset(map(LetterId.parse, ids)) if ids else None,
                    after=None if after is None else LetterId.parse(after),
                    since=None if since is None else parse_time(since),
                    until=None if until is None else parse_time(until),
                    state=None if state == "all" else state,
                    **{name: rest.pop(name) for name in names},
                )
            return command(choice=choice, **rest)

        for option in reversed((
            click.argument("ids", nargs=-1, metavar="[ID]..."),
            click.option("--task", help="Name of the task; may hold * and ?."),
            click.option("--exception", help="Name of the exception's class; may hold * and ?."),
            click.option("--reason", help="Why it is here: exception, time-limit, worker-lost, …"),
            click.option("--kind", type=click.Choice(["passing", "hard"]), help="As its task declares the error."),
            click.option("--topic", help="The topic it was consumed from."),
            click.option("--partition", type=click.IntRange(0), help="The partition it was consumed from."),
            click.option("--since", help="Failed then or later: 2h (ago), 2026-11-22T03:00."),
            click.option("--until", help="Failed before then."),
            click.option("--after", metavar="ID", help="Only those that lie after this letter."),
            click.option("--key", help="The record's key; may hold * and ?."),
            click.option("--task-id", help="The task's id; may hold * and ?."),
            click.option("--state", type=click.Choice([*STATES, "all", "auto"]), default="auto",
                         help=f"What was done with it; auto: {default_state}, and all where ids are given.",
                         show_default=True),
        )):  # fmt: skip
            wrapper = option(wrapper)
        return wrapper  # type: ignore[return-value]

    return decorate


as_json = click.option(
    "--json", "as_json", is_flag=True, help="JSON, one object a line, instead of a table."
)
reveal = click.option("--reveal", is_flag=True, help="Show what looks like a secret too.")


@click.group()
def dlq() -> None:
    """Dead letters: look at what failed for good, replay it, skip it.

    The topic is CELERY_DEAD_LETTER_TOPIC (celery_tasks_dlq) at the brokers of CELERY_BROKER_URL.
    No command joins the workers' group or moves its offsets.

    Exit codes: 0 done, 1 no letter is meant, 2 the command is wrong, 3 some letters were refused,
    65 no export, 69 brokers not reachable, 75 somebody else took over, 78 a setting is wrong,
    130 interrupted.
    """


@dlq.command("list")
@filtered("new")
@click.option("--sort", "by", type=click.Choice([*SORTS]), default="failed", show_default=True)
@click.option("--reverse", is_flag=True, help="Oldest (smallest) first.")
@click.option(
    "--limit", type=click.IntRange(0), help="Rows; 0: all. [default: 50, all with --json]"
)
@click.option("--offset", type=click.IntRange(0), default=0, help="Rows passed over first.")
@as_json
@reveal
def list_(
    choice: Filter, by: str, reverse: bool, limit: int | None, offset: int, as_json: bool, reveal: bool
) -> None:  # fmt: skip
    """List letters, by default those nothing was done with, the newest first."""
    from scheduler.dlq import render

    with session() as opened:
        opened.index.refresh(choice.since)
        every = opened.index.entries()
        found = sort(choice.choose(every), by, reverse=not reverse)
        limit = (0 if as_json else 50) if limit is None else limit
        shown = found[offset : offset + limit if limit else None]
        if as_json:
            for entry in shown:
                click.echo(json.dumps(render.as_data(entry, reveal=reveal)))
        elif shown:
            stdout.print(render.letters_table(shown, width=stdout.width, reveal=reveal))
            stderr.print(_footer(shown, found, every, offset, choice), highlight=False, style="dim")
        if not shown:
            raise nothing(opened, every, choice)


@dlq.command()
@click.argument("letter")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@reveal
def show(letter: str, as_json: bool, reveal: bool) -> None:
    """Show all there is to know of one letter: headers, body, traceback, history."""
    from scheduler.dlq import render

    with session() as opened:
        wanted = LetterId.parse(letter)
        whole = opened.index.whole(wanted)
        if whole is None:
            raise Failure(
                f"There is no letter {wanted} in {opened.topic} (any more): see 'scheduler dlq list'.",
                NOTHING,
            )
        opened.index.refresh(since=whole.failed_at)
        entry = opened.index.find(wanted) or Entry(whole)
        if as_json:
            click.echo(json.dumps(render.whole_data(entry, whole, reveal=reveal), indent=2))
        else:
            page = render.letter_page(entry, whole, width=stdout.width, reveal=reveal)
            stdout.print(page, highlight=False)


@dlq.command()
@filtered("all")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def stats(choice: Filter, as_json: bool) -> None:
    """Count letters by task and exception; show when they failed."""
    import time

    from scheduler.dlq import render, statistics

    with session() as opened:
        opened.index.refresh(choice.since)
        entries = choice.choose(opened.index.entries())
        summary = statistics.summarize(entries)
        now = time.time()
        if as_json:
            data = {
                "new": summary.new,
                "total": summary.total,
                "oldest": summary.oldest,
                "acts": summary.acts,
                "hours": statistics.rates(entries, now),
                "groups": [
                    {
                        "task": group.task,
                        "exception": group.exception,
                        "oldest": group.oldest,
                        "newest": group.newest,
                        **{state: group.states[state] for state in STATES},
                    }
                    for group in summary.groups
                ],
            }
            click.echo(json.dumps(data))
        elif entries:
            page = render.stats_page(summary.groups, entries, now, width=stdout.width)
            stdout.print(page, highlight=False)
        else:
            raise nothing(opened, opened.index.entries(), choice)


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--by", help="Only what this person did; may hold * and ?.")
@click.option("--act", type=click.Choice(["replayed", "skipped", "imported"]))
@click.option("--since", help="Done then or later: 2h (ago), 2026-11-22T03:00.")
@as_json
def history(
    ids: tuple[str, ...], by: str | None, act: str | None, since: str | None, as_json: bool
) -> None:
    """List every act on letters: who, when, why; the last act last."""
    from fnmatch import fnmatchcase

    from scheduler.dlq import render

    with session() as opened:
        wanted = {LetterId.parse(one) for one in ids}
        start = 0.0 if since is None else parse_time(since)
        opened.index.refresh(letters=False)
        acts = [
            (letter, one)
            for letter, one in opened.index.history.all()
            if (not wanted or letter in wanted)
            and (by is None or fnmatchcase(one.by, by))
            and (act is None or one.act == act)
            and one.at >= start
        ]
        if not acts:
            raise Failure(f"Nothing of that kind was done with letters of {opened.topic}.", NOTHING)
        if as_json:
            for letter, one in acts:
                click.echo(json.dumps({"letter": str(letter), **one.as_dict()}))
        else:
            stdout.print(render.history_table(acts, width=stdout.width), highlight=False)


def nothing(opened: Session, every: list[Entry], choice: Filter) -> Failure:
    """Say that no letter is meant, and what there is instead."""
    if not opened.index.history.topic_id:
        return Failure(
            f"There is no topic {opened.topic}: no worker has written a letter yet, or"
            " CELERY_DEAD_LETTER_TOPIC names another.",
            NOTHING,
        )
    if not every:
        when = "" if choice.since is None else f" that failed since {moment(choice.since)}"
        return Failure(f"There is no letter in {opened.topic}{when}.", NOTHING)
    counts = {state: sum(entry.state == state for entry in every) for state in STATES}
    told = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    if choice.narrows or choice.after or choice.state is None:
        return Failure(f"No letter of {opened.topic} is meant by that; it holds {told}.", NOTHING)
    return Failure(
        f"There is no {choice.state} letter in {opened.topic}; it holds {told} (--state all).",
        NOTHING,
    )


def _footer(
    shown: list[Entry], found: list[Entry], every: list[Entry], offset: int, choice: Filter
) -> Text:
    part = f"{offset + 1} to {offset + len(shown)} of " if len(shown) < len(found) else ""
    more = offset + len(shown)
    rest = f"; more with --offset {more}" if more < len(found) else ""
    hidden = counted(len(every) - len(found), "other")
    why = "not meant by these filters" if choice.narrows or choice.after else "--state all"
    others = f"; {hidden} ({why})" if len(found) < len(every) else ""
    return Text(f"{part}{counted(len(found), 'letter')}{rest}{others}.")
