"""`scheduler exporter`: the exporter on the command line."""

from __future__ import annotations

import logging
import os
import sys

import click

from kombu_kafka.errors import ConfigurationError
from kombu_kafka.url import parse
from scheduler.metrics_access import CurrentAccess
from scheduler.settings import Settings
from scheduler.stopping import stoppable

__all__ = ["exporter"]


def _servers(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    servers = tuple(filter(None, map(str.strip, (value or "").split(","))))
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
            raise click.BadParameter(
                f"{server!r} is not host:port, as in host1:9100,host2:9100.", context, parameter
            )
    return servers


@click.command()
@click.option(
    "--kafka-broker",
    metavar="HOST:PORT[,…]",
    help="Brokers whose consumer groups are looked at; by default those of the broker URL.",
)
@click.option(
    "--broker-url",
    help="Celery's broker URL; by default CELERY_BROKER_URL, else the brokers of --kafka-broker.",
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    default=("*",),
    show_default=True,
    help="A consumer group to look at besides the workers' own; * and ? fit anything; repeatable.",
)
@click.option("--listen", default="127.0.0.1", show_default=True, help="Address to answer on.")
@click.option(
    "--port", default=9808, show_default=True, type=click.IntRange(0, 65535), help="Port."
)
@click.option(
    "--interval",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.5, 3600),
    help="Seconds between two looks at Kafka.",
)
@click.option(
    "--expire",
    default=600.0,
    show_default=True,
    type=click.FloatRange(1, 86400 * 7),
    help="Seconds for which a vanished group or worker is shown.",
)
@click.option("--no-events", is_flag=True, help="Don't listen to Celery's events.")
@click.option(
    "--compat",
    type=click.Choice(["celery-exporter"]),
    help="Serve another exporter's metric names too.",
)
@click.option(
    "--certificates-of",
    metavar="HOST:PORT[,…]",
    callback=_servers,
    help="Servers that speak TLS, besides the brokers, whose certificates' ends are told.",
)
def exporter(
    kafka_broker: str | None,
    broker_url: str | None,
    groups: tuple[str, ...],
    listen: str,
    port: int,
    interval: float,
    expire: float,
    no_events: bool,
    compat: str | None,
    certificates_of: tuple[str, ...],
) -> None:
    """Serve Celery's events and the consumer groups' lag for Prometheus.

    /metrics is answered from memory; /health is 503 while Kafka or the events are out of reach.

    CELERY_METRICS_PASSWORD_FILE (and CELERY_METRICS_USER) ask readers for a password,
    CELERY_METRICS_TLS_CERTIFICATE and CELERY_METRICS_TLS_KEY speak TLS.
    """
    from scheduler.exporter.service import Exporter, ExporterConfig
    from scheduler.readiness import notify

    brokers = parse(f"kafka://{kafka_broker}").hosts if kafka_broker else ()
    environ = dict(os.environ)
    environ.pop("CUSTOM_PARTITION", None)  # it owns none
    if broker_url:
        environ["CELERY_BROKER_URL"] = broker_url
    elif brokers and not environ.get("CELERY_BROKER_URL", "").strip():
        environ["CELERY_BROKER_URL"] = f"kafka://{','.join(brokers)}//"
    settings = Settings.from_environ(environ)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    sys.setswitchinterval(0.001)  # a scrape must not wait for the thread that parses them
    config = ExporterConfig(
        settings,
        brokers,
        groups,
        listen,
        port,
        interval,
        expire,
        events=not no_events,
        compat=compat is not None,
        access=CurrentAccess(environ),
        certificate_files=tuple(
            filter(None, [environ.get("CELERY_METRICS_TLS_CERTIFICATE", "").strip()])
        ),
        certificate_servers=certificates_of,
    )
    try:
        service = Exporter(config)
    except OSError as exc:
        raise ConfigurationError(
            f"{listen}:{port} can't be listened on ({exc.strerror or exc}): free it, or give "
            f"another --listen or --port."
        ) from exc
    with stoppable() as stop:
        service.start()
        scheme = "https" if config.access().tls else "http"
        click.echo(f"Serving {scheme}://{listen}:{service.server.port}/metrics.")
        notify("READY=1", f"STATUS=Serving metrics on {listen}:{service.server.port}.")
        stop.wait()
        notify("STOPPING=1")
        service.stop()
