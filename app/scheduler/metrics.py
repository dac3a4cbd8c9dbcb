"""Every metric that this project serves itself: name, type, labels, meaning.

docs/monitoring.md's tables are made from this module (scripts/metrics_docs.py), the exporter and
the workers can serve nothing that is not here, and rules and dashboards may use nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALL", "COMPAT", "EXPORTER", "WORKER", "Metric"]

#: Upper bounds, in seconds, of what a task may take or wait.
SECONDS = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as it is scraped; a counter's ends with ``_total``.
        kind: ``counter``, ``gauge`` or ``histogram``.
        labels: names of its labels.
        help: what it means, in a sentence.
        buckets: upper bounds of a histogram.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which its samples are scraped."""
        if self.kind != "histogram":
            return (self.name,)
        return tuple(self.name + suffix for suffix in ("_bucket", "_count", "_sum"))


def _counter(name: str, labels: str, help: str) -> Metric:
    return Metric(name, "counter", tuple(labels.split()), help)


def _gauge(name: str, labels: str, help: str) -> Metric:
    return Metric(name, "gauge", tuple(labels.split()), help)


def _histogram(name: str, labels: str, help: str) -> Metric:
    return Metric(name, "histogram", tuple(labels.split()), help, SECONDS)


def _named(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


#: Served by `scheduler exporter`.
EXPORTER = _named(
    # Tasks, from Celery's events
    _counter("celery_tasks_sent_total", "task queue",
             "Tasks queued, as their producers tell."),
    _counter("celery_worker_tasks_received_total", "worker task",
             "Tasks that a worker has taken from its partition."),
    _counter("celery_worker_tasks_started_total", "worker task",
             "Tasks that began to run."),
    _counter("celery_worker_tasks_succeeded_total", "worker task",
             "Tasks that returned."),
    _counter("celery_worker_tasks_failed_total", "worker task exception",
             "Tasks that failed for good, by the exception's class."),
    _counter("celery_worker_tasks_retried_total", "worker task",
             "Runs that failed and asked for another run."),
    _counter("celery_worker_tasks_revoked_total", "worker task",
             "Tasks dropped because somebody revoked them or they expired."),
    _counter("celery_worker_tasks_rejected_total", "worker task",
             "Tasks that a worker rejected."),
    _histogram("celery_task_runtime_seconds", "task",
               "How long tasks that returned have run."),
    _histogram("celery_task_queue_wait_seconds", "task",
               "From queued to started; needs the producers' task-sent events."),
    _histogram("celery_task_prefetch_wait_seconds", "task",
               "From taken by a worker to started: time behind other tasks of the same worker."),
    # Workers, from their heartbeats
    _gauge("celery_worker_up", "worker",
           "1 while heartbeats come; 0 once they stop, or the worker says that it ends."),
    _gauge("celery_worker_active_tasks", "worker", "Tasks that run now."),
    _gauge("celery_worker_processed_tasks", "worker",
           "Tasks done since the worker started, as its heartbeat tells."),
    _gauge("celery_worker_pool_size", "worker",
           "Processes or threads that run tasks; asked from the workers in the background."),
    _gauge("celery_worker_last_heartbeat_timestamp_seconds", "worker",
           "When the last heartbeat came (Unix time)."),
    _gauge("celery_queue_length", "queue_name",
           "Tasks of the workers' queue that are not done yet: the group's lag over all partitions."),
    # Consumer groups
    _gauge("kafka_consumer_group_lag", "group topic partition",
           "Records after the group's committed offset. Where the group has committed nothing, all "
           "of the partition. Never negative."),
    _gauge("kafka_consumer_group_lag_seconds", "group topic partition",
           "Age of the oldest record that is not done; 0 where all is done."),
    _gauge("kafka_consumer_group_committed_offset", "group topic partition",
           "The offset below which the group has done everything."),
    _gauge("kafka_consumer_group_drain_seconds", "group topic",
           "Time until the lag is gone at the rate of the last minutes; +Inf where nothing moves."),
    _gauge("kafka_consumer_group_up", "group",
           "1 while Kafka knows the group; 0 after it vanished, until it is forgotten here too."),
    _gauge("kafka_consumer_group_members", "group",
           "Members in the group. Workers of bound partitions commit without being members."),
    _gauge("kafka_consumer_group_partition_owner", "group topic partition owner",
           "1 for each name under which the partition was committed lately, or that is assigned to it."),
    _gauge("kafka_consumer_group_partition_owners", "group topic partition",
           "How many names these are: more than 1 for long means two owners."),
    _gauge("kafka_consumer_group_watermark_distance", "group topic partition",
           "From the committed offset to the last record done above it, by the commit's metadata."),
    _gauge("kafka_consumer_group_unfinished_records", "group topic partition",
           "Records in that distance that are not done: begun, or waiting for their turn."),
    _gauge("kafka_topic_partition_begin_offset", "topic partition",
           "Offset of the partition's first record."),
    _gauge("kafka_topic_partition_end_offset", "topic partition",
           "Offset after the partition's last record: its rate is what is being queued."),
    # Dead letters
    _gauge("celery_dead_letters", "topic", "Letters in the dead letter topic."),
    _gauge("celery_dead_letters_pending", "topic",
           "Dead letters that nobody has replayed or skipped yet."),
    _gauge("celery_dead_letters_oldest_age_seconds", "topic",
           "Age of the oldest dead letter that nobody has replayed or skipped; 0 without one."),
    _counter("celery_dead_letters_arrived_total", "task exception reason",
             "Dead letters written since the exporter started."),
    _counter("celery_dead_letters_replayed_total", "task", "Dead letters replayed by a person."),
    _counter("celery_dead_letters_skipped_total", "task", "Dead letters marked as skipped."),
    # Delayed messages
    _gauge("celery_delayed_messages", "partition",
           "Messages that wait to become due, by the partition of the delay topic."),
    _gauge("celery_delayed_late_seconds", "partition",
           "How long one of the first of them has been due; 0 if none is."),
    # The exporter itself
    _gauge("celery_exporter_kafka_up", "", "1 if the last look at Kafka worked."),
    _gauge("celery_exporter_events_up", "", "1 while Celery's events are listened to."),
    _gauge("celery_exporter_last_refresh_timestamp_seconds", "",
           "When Kafka was last looked at successfully (Unix time)."),
    _gauge("celery_exporter_refresh_seconds", "", "How long that took."),
    _counter("celery_exporter_refresh_failures_total", "", "Looks at Kafka that failed."),
    _counter("celery_exporter_events_total", "type", "Events received."),
    _counter("celery_exporter_malformed_events_total", "", "Events that were not understood."),
    _counter("celery_exporter_series_overflow_total", "metric",
             "Samples counted under the label value `other` because the metric has its full number "
             "of series."),
    _gauge("celery_exporter_info", "version group topic",
           "Always 1; says which version runs, and which group and queue are the workers' own."),
    _gauge("celery_exporter_certificate_expiry_timestamp_seconds", "server",
           "Until when a TLS certificate is valid (Unix time): the one that a broker shows, or another "
           "server of `--certificates-of`, or a file of the exporter's own, as a client and before its "
           "metrics."),
)  # fmt: skip

#: Served by each worker itself.
WORKER = _named(
    _gauge("kombu_kafka_partition_owned", "group topic partition",
           "1 for each partition that this worker consumes now."),
    _gauge("kombu_kafka_in_flight", "group topic partition",
           "Messages handed to the worker and not yet done."),
    _gauge("kombu_kafka_buffered", "group topic partition",
           "Messages fetched that wait for their turn."),
    _gauge("kombu_kafka_tracked", "group topic partition",
           "Offsets remembered above the watermark."),
    _gauge("kombu_kafka_watermark", "group topic partition",
           "Offset below which all is done."),
    _gauge("kombu_kafka_watermark_distance", "group topic partition",
           "From the watermark to the highest offset that was fetched."),
    _counter("kombu_kafka_redeliveries_total", "group topic partition",
             "Messages that were handed out again."),
    _gauge("kombu_kafka_metadata_fill_ratio", "group topic partition",
           "How full the commit's metadata is; fetching pauses at 0.75."),
    _gauge("kombu_kafka_fetch_paused", "group topic partition reason",
           "1 while nothing is fetched because too much is unfinished: `metadata` (of a commit, is "
           "full), `outstanding` (10,000 messages are), `buffer` (too many wait)."),
    _counter("kombu_kafka_records_lost_total", "group topic partition",
             "Messages that Kafka's retention deleted before they were consumed."),
    _gauge("kombu_kafka_journal_lines", "group topic partition",
           "Records whose end only the partition's journal knows yet."),
    _counter("kombu_kafka_commits_total", "", "Commits of offsets that worked."),
    _counter("kombu_kafka_commit_failures_total", "", "Commits that failed and were tried again."),
    _counter("kombu_kafka_commit_seconds_total", "",
             "How long the commits that worked took together; with their number, the mean."),
    _gauge("kombu_kafka_commit_seconds", "", "How long the last commit took."),
    _gauge("kombu_kafka_delay_active", "",
           "1 while it is this worker that forwards delayed messages: one of all workers is."),
    _gauge("kombu_kafka_delay_backlog", "",
           "Delayed messages that are yet to be forwarded, as the worker that does it knows; 0 elsewhere."),
    _counter("kombu_kafka_delay_forwarded_total", "", "Delayed messages forwarded when they were due."),
    _counter("kombu_kafka_delay_late_seconds_total", "",
             "How late these were together; with their number, the mean."),
    _gauge("kombu_kafka_consumer_up", "",
           "1 while the worker's Kafka consumer runs; 0 when it has failed."),
    _gauge("kombu_kafka_pool_size", "", "Processes or threads of this worker that run tasks."),
    _gauge("kombu_kafka_certificate_expiry_timestamp_seconds", "file",
           "Until when a TLS certificate of the worker's own is valid (Unix time): as a client of Kafka, "
           "and before its metrics."),
)  # fmt: skip

#: Served by `scheduler exporter --compat celery-exporter` besides: what published dashboards use.
COMPAT = _named(
    _counter("celery_task_sent_total", "name hostname queue_name", "Tasks sent."),
    _counter("celery_task_received_total", "name hostname queue_name", "Tasks received."),
    _counter("celery_task_started_total", "name hostname queue_name", "Tasks started."),
    _counter("celery_task_succeeded_total", "name hostname queue_name", "Tasks succeeded."),
    _counter("celery_task_failed_total", "name hostname exception queue_name", "Tasks failed."),
    _counter("celery_task_rejected_total", "name hostname queue_name", "Tasks rejected."),
    _counter("celery_task_revoked_total", "name hostname queue_name", "Tasks revoked."),
    _counter("celery_task_retried_total", "name hostname queue_name", "Tasks retried."),
    _histogram("celery_task_runtime", "name hostname queue_name", "Run time, in seconds."),
    _gauge("celery_worker_tasks_active", "hostname", "Tasks that run now."),
    _gauge("celery_active_consumer_count", "queue_name", "Partitions of the queue with an owner."),
    _gauge("celery_active_worker_count", "queue_name", "Workers that are up."),
    _gauge("celery_active_process_count", "queue_name", "Processes of these workers' pools."),
)  # fmt: skip

ALL = {**EXPORTER, **WORKER, **COMPAT}
