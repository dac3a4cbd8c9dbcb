"""The exporter as a whole: what is collected, what is served, whether all is well."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version

import prometheus_client
from celery import Celery
from celery.utils import nodesplit

from kombu_kafka.clients.handshake import require_access
from kombu_kafka.delay.backlog import LevelBacklog
from scheduler.broker import broker_options
from scheduler.dlq.statistics import Snapshot
from scheduler.exporter.collector import Collector, View
from scheduler.exporter.compat import CompatMetrics
from scheduler.exporter.events import EventState
from scheduler.exporter.families import Families
from scheduler.exporter.kafka_text import render
from scheduler.exporter.receiver import EventListener
from scheduler.exporter.slow import SlowReader
from scheduler.factory import configure
from scheduler.metrics import EXPORTER
from scheduler.metrics_access import Access
from scheduler.metrics_server import Health, MetricsServer
from scheduler.settings import Settings

__all__ = ["Exporter", "ExporterConfig"]

#: Label value where a letter doesn't say.
_UNKNOWN = "unknown"

_UP = re.compile(r'celery_worker_up\{worker="([^"]*)"\}')


@dataclass(frozen=True)
class ExporterConfig:
    """How an exporter is to run.

    Attributes:
        settings: broker URL, group, topics, as a worker has them.
        brokers: bootstrap servers for the lag, in place of the broker URL's.
        groups: patterns of the groups to look at, besides the workers' own.
        host: address to listen on.
        port: port to listen on.
        interval: seconds between two looks at Kafka.
        expire: seconds for which a vanished group or worker is shown.
        events: whether Celery's events are listened to.
        compat: whether celery-exporter's names are served too.
        access: returns who may read what it serves, and over what.
        certificate_files: certificates whose end is told besides the brokers' and the client's.
        certificate_servers: what else shows one, as ``host:port``.
    """

    settings: Settings
    brokers: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("*",)
    host: str = "127.0.0.1"
    port: int = 9808
    interval: float = 10.0
    expire: float = 600.0
    events: bool = True
    compat: bool = False
    access: Callable[[], Access] = Access
    certificate_files: tuple[str, ...] = ()
    certificate_servers: tuple[str, ...] = ()


class Exporter:
    """Collects in the background and serves from memory.

    Arguments:
        config: how it is to run.

    Raises:
        ConfigurationError: the broker URL or an option is wrong.
        OSError: the address can't be listened on.
    """

    def __init__(self, config: ExporterConfig) -> None:
        self._config = config
        settings = config.settings
        app = configure(Celery("celery-exporter", set_as_current=False), settings)
        options = broker_options(app)
        if config.brokers:
            options = replace(options, hosts=config.brokers)
        self._options = replace(options, client_id="celery-exporter")
        self._compat = CompatMetrics(settings.topic, self._overflowed) if config.compat else None
        self.events = EventState(
            settings.topic,
            config.expire,
            observers=[self._compat.observe] if self._compat else [],
        )
        self._lock = threading.Lock()
        self._families = Families(
            metric
            for name, metric in EXPORTER.items()
            if name.startswith(("celery_exporter", "celery_dead_letters", "celery_delayed"))
            and name not in _MADE_ELSEWHERE
        )
        self._families["celery_exporter_info"].set(
            1, version("kombu-kafka"), options.group_id, settings.topic
        )
        self._kafka: list[bytes] = []
        self._view: View | None = None
        self._oldest_letter: float | None = None
        self.collector = Collector(
            self._options,
            settings.topic,
            groups=config.groups,
            show=self._show,
            interval=config.interval,
            expire=config.expire,
        )
        self.listener = (
            EventListener(app, self.events.handle, self.events.pool_sizes, self.events.unsized)
            if config.events
            else None
        )
        self._slow = SlowReader(
            self._options,
            self,
            config.interval,
            filter(None, (self._options.ssl_certfile, *config.certificate_files)),
            config.certificate_servers,
        )
        self.server = MetricsServer(
            config.host, config.port, self.metrics, self.health, config.access
        )

    def start(self) -> None:
        """Begin to collect and to answer.

        Raises:
            AuthenticationError: the brokers don't let this client in.
        """
        require_access(self._options)
        self.collector.start()
        self._slow.start()
        if self.listener:
            self.listener.start()
        self.server.start()

    def stop(self) -> None:
        """End."""
        self.server.stop()
        if self.listener:
            self.listener.stop()
        self._slow.stop()
        self.collector.stop()

    def letters(self, found: Snapshot) -> None:
        """Show which dead letters there are, and what became of them."""
        topic = self._options.dead_letter_topic
        with self._lock:
            own = self._families
            own["celery_dead_letters"].set(found.summary.total, topic)
            own["celery_dead_letters_pending"].set(found.summary.new, topic)
            self._oldest_letter = found.summary.oldest
            for (task, exception, reason), count in found.arrivals.items():
                labels = task or _UNKNOWN, exception or _UNKNOWN, reason or _UNKNOWN
                own["celery_dead_letters_arrived_total"].set(count, *labels)
            for name, counts in (
                ("celery_dead_letters_replayed_total", found.replays),
                ("celery_dead_letters_skipped_total", found.skips),
            ):
                for task, count in counts.items():
                    own[name].set(count, task or _UNKNOWN)

    def delays(self, levels: list[LevelBacklog]) -> None:
        """Show what waits for its time."""
        with self._lock:
            for level in levels:
                partition = str(level.number)
                self._families["celery_delayed_messages"].set(level.waiting, partition)
                self._families["celery_delayed_late_seconds"].set(round(level.late, 3), partition)

    def certificates(self, ends: Mapping[str, float]) -> None:
        """Show until when certificates are valid."""
        family = self._families["celery_exporter_certificate_expiry_timestamp_seconds"]
        with self._lock:
            family.clear()
            for server, end in ends.items():
                family.set(end, server)

    def health(self) -> Health:
        """Return whether Kafka answers and events are listened to, and since when not."""
        view = self._view
        late = 3 * self._config.interval + 10
        fresh = view is not None and time.time() - view.at < late
        events = self.listener is None or self.listener.up
        said = {
            "kafka": self.collector.up and fresh,
            "events": events if self.listener else None,
            "last_refresh": round(view.at, 3) if view else None,
        }
        return bool(said["kafka"]) and events, said

    def metrics(self) -> list[bytes]:
        """Return everything, from memory."""
        events = list(self._event_lines())
        with self._lock:
            own = self._families
            view = self._view
            own["celery_exporter_kafka_up"].set(self.collector.up)
            own["celery_exporter_events_up"].set(bool(self.listener and self.listener.up))
            failures = own["celery_exporter_refresh_failures_total"]
            failures.set(self.collector.failures)
            topic = self._options.dead_letter_topic
            if own["celery_dead_letters_pending"].get(topic) is not None:
                oldest = self._oldest_letter
                age = max(0.0, time.time() - oldest) if oldest else 0.0
                own["celery_dead_letters_oldest_age_seconds"].set(round(age, 3), topic)
            lines = list(own.lines())
        # What is too old to be acted upon is not shown.
        kafka = self._kafka if view and time.time() - view.at < self._config.expire else []
        text = "\n".join([*lines, *events, ""]).encode()
        return [text, *kafka, prometheus_client.generate_latest()]

    def _event_lines(self) -> Iterator[str]:
        if not self._compat:
            yield from self.events.lines()
            return
        for line in self.events.lines():
            # The one name that both use, with another label there.
            up = _UP.match(line)
            host = f',hostname="{nodesplit(up[1])[1]}"' if up else ""
            yield line.replace("}", host + "}", 1) if up else line
        yield from self._compat.lines(self.events, self._owned())

    def _owned(self) -> int:
        if self._view is None:
            return 0
        own = (self._options.group_id, self._config.settings.topic)
        lags = self._view.snapshot.lags.items()
        return sum(bool(lag.owners) for pair, lag in lags if (pair.group, pair.topic) == own)

    def _show(self, view: View) -> None:
        if view.snapshot.omitted:
            self._overflowed("kafka_consumer_group_lag")
        text = render(
            view,
            group=self._options.group_id,
            topic=self._config.settings.topic,
        )
        with self._lock:
            self._kafka, self._view = text, view
            own = self._families
            own["celery_exporter_last_refresh_timestamp_seconds"].set(round(view.at, 3))
            own["celery_exporter_refresh_seconds"].set(round(view.took, 6))

    def _overflowed(self, metric: str) -> None:
        self.events.overflowed(metric)


#: Written by the events' or by Kafka's part.
_MADE_ELSEWHERE = frozenset(
    {
        "celery_exporter_events_total",
        "celery_exporter_malformed_events_total",
        "celery_exporter_series_overflow_total",
    }
)
