"""A worker's own metrics over HTTP: a thread of its main process, which owns the Kafka consumer."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import prometheus_client
from celery import bootsteps
from celery.utils.log import get_logger

from kombu_kafka.clients.metrics import Sample
from kombu_kafka.consuming.progress import PAUSES
from scheduler.exporter import certificates
from scheduler.exporter.families import Families, escaped, number, sample
from scheduler.metrics import WORKER
from scheduler.metrics_access import AccessError, CurrentAccess
from scheduler.metrics_server import Health, MetricsServer

__all__ = ["WorkerMetrics", "port_of", "render"]

logger = get_logger(__name__)


#: The number of a systemd unit's instance: 2 in ``celery-worker@2.service``.
_INSTANCE = re.compile(r"@(\d{1,5})(?:\.service)?$")


def port_of(environ: Mapping[str, str], partitions: Iterable[int] | None) -> int | None:
    """Return the port to serve on; None for none.

    CELERY_METRICS_PORT plus the first partition that is bound to the worker. One that shares its
    partitions with its group adds the number of its unit's instance instead (CELERY_UNIT, or 0),
    so that several on a host, each an instance of one unit, have a port each.

    Raises:
        ValueError: CELERY_METRICS_PORT is no port that leaves room for what is added.

    >>> port_of({"CELERY_METRICS_PORT": "9540"}, (3, 7))
    9543
    >>> port_of({"CELERY_METRICS_PORT": "9540", "CELERY_UNIT": "celery-group@2.service"}, None)
    9542
    """
    given = environ.get("CELERY_METRICS_PORT", "").strip()
    if not given:
        return None
    base = int(given) if given.isascii() and given.isdecimal() else 0
    instance = _INSTANCE.search(environ.get("CELERY_UNIT", "").strip())
    port = base + (min(partitions) if partitions else int(instance[1]) if instance else 0)
    if not 0 < base <= port < 65536:
        raise ValueError(
            f"CELERY_METRICS_PORT={given} can't be used: it must be a port that leaves room for "
            f"the number of the partition or the unit's instance, for example 9540."
        )
    return port


class WorkerMetrics(bootsteps.StartStopStep):
    """Serves them from before the worker consumes until it ends.

    After the pool's start: the children that it forks then have nothing of the server's. Metrics
    that can't be served are an error in the log; the worker works on.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._server: MetricsServer | None = None

    def start(self, parent: Any) -> None:
        """Begin to serve, where CELERY_METRICS_PORT says so."""
        options = parent.app.conf.broker_transport_options or {}
        host = os.environ.get("CELERY_METRICS_HOST", "").strip() or "127.0.0.1"
        try:
            port = port_of(os.environ, options.get("partitions"))
            if port is None:
                return
            self._server = MetricsServer(
                host,
                port,
                lambda: render(parent),
                lambda: _health(parent),
                CurrentAccess(os.environ),
            )
        except (AccessError, ValueError) as exc:
            logger.error("This worker's metrics are not served: %s", exc)
            return
        except OSError as exc:
            logger.error(
                "This worker's metrics are not served: %s:%d can't be listened on (%s). Free it, "
                "or give each worker of this host a CELERY_METRICS_PORT or a numbered unit.",
                host, port, exc.strerror or exc,
            )  # fmt: skip
            return
        self._server.start()
        logger.info("Metrics on http://%s:%d/metrics.", host, port)

    def stop(self, parent: Any) -> None:
        """Serve no more."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    terminate = stop


def render(worker: Any) -> list[bytes]:
    """Write a worker's metrics."""
    families = Families(WORKER.values())
    families["kombu_kafka_pool_size"].set(_pool_size(worker))
    transport = _transport(worker)
    _certificates(families, transport and transport.options.ssl_certfile)
    consumer = transport and transport.__dict__.get("consumer")
    lines: list[str] = []
    if consumer is not None:
        families["kombu_kafka_consumer_up"].set(consumer.error is None)
        _consumer(families, transport.options.group_id, consumer)
        meter = consumer.commit_meter
        families["kombu_kafka_commits_total"].set(meter.count)
        families["kombu_kafka_commit_failures_total"].set(meter.failures)
        families["kombu_kafka_commit_seconds_total"].set(meter.total_seconds)
        families["kombu_kafka_commit_seconds"].set(meter.seconds)
        lines = list(_client(consumer.metrics.samples())) if consumer.metrics else []
    dispatcher = transport and transport.dispatcher
    if dispatcher is not None:
        done = dispatcher.statistics
        families["kombu_kafka_delay_active"].set(done.active)
        families["kombu_kafka_delay_backlog"].set(done.waiting)
        families["kombu_kafka_delay_forwarded_total"].set(done.forwarded)
        families["kombu_kafka_delay_late_seconds_total"].set(done.late_ms_total / 1000)
    text = "\n".join([*families.lines(), *lines, ""]).encode()
    return [text, prometheus_client.generate_latest()]


def _certificates(families: Families, of_the_client: str | None) -> None:
    of_the_metrics = os.environ.get("CELERY_METRICS_TLS_CERTIFICATE", "").strip()
    # Who uses a file says what is wrong with it.
    with contextlib.suppress(ModuleNotFoundError):
        ends = certificates.of_files(filter(None, (of_the_client, of_the_metrics)))
        for file, end in ends.items():
            families["kombu_kafka_certificate_expiry_timestamp_seconds"].set(end, file)


def _consumer(families: Families, group: str, consumer: Any) -> None:
    for partition, found in consumer.inbox.statistics().items():
        labels = (group, partition.topic, str(partition.partition))
        families["kombu_kafka_partition_owned"].set(consumer.error is None, *labels)
        for name, value in (
            ("kombu_kafka_in_flight", found.in_flight),
            ("kombu_kafka_buffered", found.waiting),
            ("kombu_kafka_tracked", found.tracked),
            ("kombu_kafka_watermark", found.watermark),
            ("kombu_kafka_watermark_distance", found.position - found.watermark),
            ("kombu_kafka_redeliveries_total", found.redeliveries),
            ("kombu_kafka_metadata_fill_ratio", found.metadata_fill),
            ("kombu_kafka_journal_lines", found.journal_lines),
            ("kombu_kafka_records_lost_total", found.lost),
        ):
            families[name].set(value, *labels)
        for reason in PAUSES:
            families["kombu_kafka_fetch_paused"].set(found.paused_by == reason, *labels, reason)


def _client(samples: Iterable[Sample]) -> Iterator[str]:
    """Write the client's metrics, those of one name together."""
    named: dict[str, list[Sample]] = {}
    for found in samples:
        named.setdefault(found.name, []).append(found)
    for name, found_here in named.items():
        yield f"# HELP {name} {escaped(found_here[0].help)}"
        yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
        for found in found_here:
            yield sample(name, found.labels, found.labels.values()) + number(found.value)


def _health(worker: Any) -> Health:
    transport = _transport(worker)
    consumer = transport and transport.__dict__.get("consumer")
    up = consumer is not None and consumer.error is None
    return up, {"consuming": up}


def _transport(worker: Any) -> Any:
    consumer = getattr(worker, "consumer", None)
    connection = getattr(consumer, "connection", None)
    return None if connection is None else connection._transport


def _pool_size(worker: Any) -> int:
    pool = getattr(worker, "pool", None)
    return int(getattr(pool, "num_processes", None) or getattr(pool, "limit", None) or 0)
