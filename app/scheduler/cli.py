"""The command `scheduler`: tables for people, JSON for programs, exit codes for scripts.

0: all is well; 1: it is not, and one sentence says why; 2: the command or a setting is wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from kombu_kafka import topics as kafka_topics
from kombu_kafka.errors import AuthenticationError, ConfigurationError, KombuKafkaError
from kombu_kafka.options import Options
from kombu_kafka.wording import counted
from scheduler.broker import broker_options
from scheduler.dlq.command import dlq
from scheduler.exporter.command import exporter
from scheduler.factory import import_tasks
from scheduler.preflight import EX_CONFIG
from scheduler.settings import Settings, SettingsError
from scheduler.smoke import Progress, SmokeResult

__all__ = ["main"]

stdout = Console()
stderr = Console(stderr=True)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


P = ParamSpec("P")
R = TypeVar("R")


class Failure(click.ClickException):
    """The system is not as it should be."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """Print one sentence."""
        sentence = escape(self.message)  # a log's [brackets] are no markup
        stderr.print(f"[bold red]scheduler:[/] {sentence}", highlight=False, soft_wrap=True)


class Usage(Failure):
    """The command or a setting is wrong."""

    exit_code = 2


class Refused(Failure):
    """The brokers don't let this client in."""

    exit_code = EX_CONFIG


def _plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into a sentence and an exit code."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except AuthenticationError as exc:
            raise Refused(str(exc)) from exc
        except (SettingsError, ConfigurationError) as exc:
            raise Usage(str(exc)) from exc
        except KombuKafkaError as exc:
            raise Failure(str(exc)) from exc

    return wrapper


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kombu-kafka", prog_name="scheduler")
def main() -> None:
    """Celery on Kafka: look at it, try it, run it locally.

    The brokers are those of CELERY_BROKER_URL.
    """


@main.command()
@_plain_errors
def check() -> None:
    """Try the settings: import the modules with tasks, and ask the brokers for their topics."""
    from scheduler.app import app

    import_tasks(app)
    kafka_topics.partition_counts(broker_options(app))


@main.command()
@click.option("--tasks", default=1000, show_default=True, type=click.IntRange(1, 1_000_000))
@click.option(
    "--timeout", default=120.0, show_default=True, help="Seconds for all of it.", type=float
)
@as_json
@_plain_errors
def smoke(tasks: int, timeout: float, as_json: bool) -> None:
    """Send order tasks over all partitions and check that all ran, in order, with no lag left."""
    from scheduler.app import app

    result = smoke_with_bar(app, tasks, timeout)
    if as_json:
        _print_json(
            {
                "run": result.run,
                "topic": result.topic,
                "seconds": round(result.seconds, 3),
                "ok": result.fault is None,
                "fault": result.fault,
                "partitions": [
                    {**asdict(part), "in_order": part.in_order} for part in result.partitions
                ],
            }
        )
    else:
        show_smoke(result)
    if result.fault:
        raise Failure(result.fault)


@main.command()
@as_json
@_plain_errors
def topics(as_json: bool) -> None:
    """List the topics and how many partitions each has."""
    counts = kafka_topics.partition_counts(_options())
    if as_json:
        _print_json(counts)
        return
    _print_table(
        ["topic", "partitions"], ((name, str(count)) for name, count in sorted(counts.items()))
    )


@main.command()
@click.option("--topic", help="A topic other than the one the broker URL names.")
@as_json
@_plain_errors
def lag(topic: str | None, as_json: bool) -> None:
    """Show how far the workers are behind, partition by partition."""
    settings = Settings.from_environ(os.environ)
    rows = [
        {"partition": number, "committed": committed, "end": end, "lag": end - (committed or 0)}
        for number, (committed, end) in sorted(
            kafka_topics.lag(_options(settings), topic or settings.topic).items()
        )
    ]
    if as_json:
        _print_json({"topic": topic or settings.topic, "group": settings.group_id, "lag": rows})
        return
    _print_table(
        ["partition", "committed", "end", "lag"],
        ([_text(value) for value in row.values()] for row in rows),
    )


@main.command()
@click.option("--partitions", default=4, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--app",
    "app_name",
    default="scheduler.examples",
    show_default=True,
    help="Your tasks: a module, several with commas, or module:app.",
)
@click.option("--demo", is_flag=True, help="Send tasks, show what became of them, and end.")
@click.option("--tasks", default=1000, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the logs in this directory.")
@_plain_errors
def dev(partitions: int, app_name: str, demo: bool, tasks: int, logs: Path | None) -> None:
    """Run a whole system here: one broker, a worker for each partition. ^C removes it.

    A worker that ends is started again. Logs go with the system, unless it fails or --logs is given.
    """
    from scheduler.dev import DevSystem
    from scheduler.local_broker import LocalBrokerError
    from scheduler.local_worker import LocalWorkerError

    def say(text: str) -> None:
        stderr.print(text, highlight=False, markup=False, soft_wrap=True)

    workers = counted(partitions, "worker")
    say(f"Running one Kafka broker and {workers} here; they take up to a minute to start.")
    try:
        system = DevSystem(partitions, app_name, logs=logs)
    except SettingsError as exc:
        raise Usage(str(exc).replace("CELERY_APP_MODULE", "--app")) from exc
    except LocalBrokerError as exc:
        raise Failure(str(exc)) from exc
    try:
        with system:
            with stderr.status("Starting …"):
                system.start(say)
            if demo:
                show_smoke(result := smoke_with_bar(system.app, tasks, timeout=120))
                if result.fault:
                    raise Failure(f"{result.fault} Logs are kept in {system.logs}.")
                return
            stdout.print(
                f"{workers} ready. Your producers need:\n"
                f"  export CELERY_BROKER_URL={system.kafka.url()}\n"
                f"Logs are in {system.logs}. ^C ends it.",
                highlight=False,
                soft_wrap=True,
            )
            system.supervise(say)
    except (LocalBrokerError, LocalWorkerError) as exc:
        raise Failure(f"{exc}\nLogs are kept in {system.logs}.") from exc
    except KeyboardInterrupt:
        stderr.print("Removed.")


assert exporter.callback is not None
exporter.callback = _plain_errors(exporter.callback)
main.add_command(exporter)
main.add_command(dlq)


def smoke_with_bar(app: Any, tasks: int, timeout: float) -> SmokeResult:
    """Run the smoke test under a progress bar (on stderr, so that stdout stays clean)."""
    from scheduler import smoke as engine

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with RichProgress(
        *columns, console=stderr, transient=True, disable=not stderr.is_terminal
    ) as bar:
        return engine.run(app, tasks=tasks, timeout=timeout, progress=_on_bar(bar))


def show_smoke(result: SmokeResult) -> None:
    """Print what was seen of a run, a row for each partition."""
    _print_table(
        ["partition", "host", "unit", "tasks done", "repeats", "lag", "in order"],
        (
            [
                str(part.partition),
                ", ".join(part.hosts) or "-",
                ", ".join(part.units) or "-",
                f"{part.done}" if part.done == part.sent else f"[red]{part.done} of {part.sent}[/]",
                str(part.repeats),
                _text(part.lag),
                "[green]yes[/]" if part.in_order else "[red]no[/]",
            ]
            for part in result.partitions
        ),
    )
    done = sum(part.done for part in result.partitions)
    stdout.print(
        f"{counted(done, 'task')} in {result.seconds:.1f} s, run {result.run}.", highlight=False
    )


def _on_bar(bar: RichProgress) -> Progress:
    stages: dict[str, Any] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "lag":
            return
        if stage not in stages:
            stages[stage] = bar.add_task(stage, total=total)
        bar.update(stages[stage], completed=done)

    return progress


def _options(settings: Settings | None = None) -> Options:
    settings = settings or Settings.from_environ(os.environ)
    return Options.of(
        settings.broker_url,
        {
            "group_id": settings.group_id,
            "connect_timeout": settings.connect_timeout,
            **settings.broker_security,
        },
    )


def _print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    table = Table()
    for column in columns:
        numeric = column not in ("topic", "host", "unit", "in order")
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*row)
    stdout.print(table)


def _print_json(data: object) -> None:
    click.echo(json.dumps(data, indent=2))


def _text(value: int | None) -> str:
    return "-" if value is None else str(value)


if __name__ == "__main__":
    main()
