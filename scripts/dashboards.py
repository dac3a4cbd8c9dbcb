#!/usr/bin/env python3
"""Writes files/grafana/dashboards/*.json, which Grafana is provisioned with; ``--check`` only compares.

Every metric comes from scheduler/metrics.py, files/jmx_exporter/kafka.yml or node_exporter; a test
holds that. A panel's query must have an answer on a running system: what counts faults says 0.
"""

# ruff: noqa: E501  (a panel is a line, with its query)

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLink,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

TARGET = Path(__file__).resolve().parent.parent / "files" / "grafana" / "dashboards"
#: Where people read this repository; role grafana puts their address in its place.
READ_AT = "https://runbooks.invalid"
#: The data source's name in Grafana's provisioning.
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")

Query = tuple[str, str]
Steps = Sequence[tuple[float, str]]

#: Good at 0, bad from 1 on.
FAULTS: Steps = ((1, "red"),)
#: Bad below 1.
UP: Steps = ((1, "green"),)


def thresholds(steps: Steps, base: str) -> dashboard.ThresholdsConfig:
    """Colours from a value on."""
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps(
            [Threshold(value=None, color=base)]
            + [Threshold(value=at, color=to) for at, to in steps]
        )
    )


def targets(queries: Sequence[Query], *, instant: bool) -> list[prometheus.Dataquery]:
    """Queries, each with the legend of its series."""
    made = []
    for letter, (expr, legend) in zip("ABCDEFGH", queries, strict=False):
        query = prometheus.Dataquery().ref_id(letter).expr(expr).legend_format(legend)
        made.append(query.instant() if instant else query.range())
    return made


def number(
    title: str, expr: str, unit: str = "short", *, steps: Steps = (), base: str = "green",
    help: str = "", link: str = "", alerts: str = "", width: int = 4,
) -> stat.Panel:  # fmt: skip
    """One large number."""
    panel = (
        stat.Panel().title(title).description(help).datasource(SOURCE).unit(unit)
        .height(4).span(width).color_mode(BigValueColorMode.BACKGROUND)
        .graph_mode(BigValueGraphMode.NONE).thresholds(thresholds(steps, base))
    )  # fmt: skip
    for target in targets([(expr, "")], instant=True):
        panel = panel.with_target(target)
    return panel.links(_links(link, alerts))


def graph(
    title: str, queries: Sequence[Query] | Query, unit: str = "short", *, help: str = "",
    steps: Steps = (), width: int = 12, link: str = "", alerts: str = "",
) -> timeseries.Panel:  # fmt: skip
    """Lines over time."""
    listed = [queries] if isinstance(queries[0], str) else queries
    panel = (
        timeseries.Panel().title(title).description(help).datasource(SOURCE).unit(unit)
        .height(8).span(width).min(0).fill_opacity(8)
        .thresholds(thresholds(steps, "green"))
        .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.TABLE)
                .placement(LegendPlacement.BOTTOM).show_legend(True).calcs(["lastNotNull", "max"]))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )  # fmt: skip
    for target in targets(listed, instant=False):  # type: ignore[arg-type]
        panel = panel.with_target(target)
    return panel.links(_links(link, alerts))


def variable(name: str, query: str, *, label: str, multi: bool = True) -> dashboard.QueryVariable:
    """A choice at the top."""
    return (
        dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(multi).include_all(multi)
    )  # fmt: skip


def _links(uid: str, alerts: str) -> list[Builder[DashboardLink]]:
    """To a dashboard, and to the page of each alert that leads to the panel."""
    named = {"Look closer": f"/d/{uid}"} if uid else {}
    named |= {alert: f"{READ_AT}/docs/runbooks/{alert}.md" for alert in alerts.split()}
    return [
        dashboard.DashboardLink(title).url(url).type(DashboardLinkType.LINK)
        for title, url in named.items()
    ]


def board(name: str, title: str, help: str, *, since: str = "now-3h") -> dashboard.Dashboard:
    """A dashboard without panels; all of them are linked with each other."""
    return (
        dashboard.Dashboard(title).uid(f"kombu-{name}").description(help).tags(["celery-on-kafka"])
        .refresh("30s").time(since, "now").timezone("browser").readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(dashboard.DashboardLink("Dashboards").type(DashboardLinkType.DASHBOARDS)
              .tags(["celery-on-kafka"]).as_dropdown(True).keep_time(True))
    )  # fmt: skip


def overview() -> dashboard.Dashboard:
    """Is work flowing, and what is wrong?"""
    return (
        board("overview", "Overview", "Is work flowing? What is wrong?")
        .with_row(dashboard.Row("What is wrong"))
        .with_panel(number("Alerts that page", 'count(ALERTS{alertstate="firing",severity="critical"}) or vector(0)',
                           steps=FAULTS, help="Each links to its page in docs/runbooks.", alerts="Watchdog"))
        .with_panel(number("Tasks waiting", "sum(celery_queue_length)", steps=((1000, "orange"), (10000, "red")),
                           link="kombu-lag", help="Lag of the workers' group over all partitions."))
        .with_panel(number("Oldest waiting", "max(kafka_consumer_group_lag_seconds and on (group, topic) celery_exporter_info)",
                           "s", steps=((60, "orange"), (600, "red")), link="kombu-lag"))
        .with_panel(number("Failures, 5 min", "(celery:task_failure_ratio:rate5m >= 0) or vector(0)", "percentunit",
                           steps=((0.01, "orange"), (0.144, "red")), link="kombu-tasks"))
        .with_panel(number("Workers down", 'count(up{job="celery-worker"} == 0) or vector(0)', steps=FAULTS, alerts="WorkerDown"))
        .with_panel(number("Dead letters open", "sum(celery_dead_letters_pending)", steps=((1, "orange"),),
                           link="kombu-dead-letters"))
        .with_panel(number("Partitions unowned", "count(celery:partition_lag unless on (group, topic, partition) kombu_kafka_partition_owned == 1) or vector(0)",
                           steps=FAULTS, link="kombu-lag", alerts="PartitionWithoutOwner"))
        .with_panel(number("Offline partitions", "max(kafka_controller_kafkacontroller_offlinepartitionscount)", steps=FAULTS, link="kombu-brokers"))
        .with_panel(number("Under-replicated", "sum(kafka_server_replicamanager_underreplicatedpartitions)", steps=((1, "orange"),), link="kombu-brokers"))
        .with_panel(number("Brokers up", 'sum(up{job="kafka"})', steps=UP, base="red", link="kombu-brokers"))
        .with_panel(number("Exporter sees Kafka", "min(celery_exporter_kafka_up)", steps=UP, base="red", alerts="ExporterBlind"))
        .with_panel(number("Exporter hears events", "min(celery_exporter_events_up)", steps=UP, base="orange", alerts="ExporterDeaf"))
        .with_row(dashboard.Row("Is work flowing"))
        .with_panel(graph("Tasks done per second", ("sum(rate(celery_worker_tasks_succeeded_total[5m]))", "done"), "ops", link="kombu-tasks"))
        .with_panel(graph("Queued and done per second", [
            ("sum(rate(kafka_topic_partition_end_offset[5m]) and on (topic) celery_exporter_info)", "queued"),
            ("sum(rate(kafka_consumer_group_committed_offset[5m]) and on (group, topic) celery_exporter_info)", "done"),
        ], "ops", help="Where the upper line stays above the lower, lag grows."))
        .with_panel(graph("Tasks waiting", ("celery:queue_lag:sum", "{{topic}}"), link="kombu-lag"))
        .with_panel(graph("Tasks running", ("sum by (worker) (celery_worker_active_tasks)", "{{worker}}")))
        .with_panel(graph("Delayed messages", ("sum(celery_delayed_messages) or vector(0)", "waiting for their time")))
        .with_panel(graph("Delayed messages: late by", ("max(celery_delayed_late_seconds) or vector(0)", "late"), "s", steps=((30, "red"),), alerts="DelayedTasksLate"))
        .with_panel(graph("Workers heard", ("min by (worker) (celery_worker_up)", "{{worker}}"), help="1 while a worker's heartbeats arrive.", alerts="WorkerSilent"))
        .with_panel(graph("Targets scraped", ("min by (job, instance) (up)", "{{job}} {{instance}}"), help="1 while Prometheus gets an answer.", alerts="TargetDown ExporterDown"))
    )  # fmt: skip


def tasks() -> dashboard.Dashboard:
    """What runs, how long, how it ends."""
    task = 'task=~"$task"'
    return (
        board("tasks", "Tasks", "Rates, run times and failures by task.")
        .with_variable(variable("task", "label_values(celery_worker_tasks_received_total, task)", label="Task"))
        .with_panel(graph("Tasks done per second", (f"sum by (task) (rate(celery_worker_tasks_succeeded_total{{{task}}}[5m]))", "{{task}}"), "ops"))
        .with_panel(graph("Mean run time", (f"sum by (task) (rate(celery_task_runtime_seconds_sum{{{task}}}[5m])) / sum by (task) (rate(celery_task_runtime_seconds_count{{{task}}}[5m]))", "{{task}}"), "s"))
        .with_panel(graph("Run time: 95 % are faster", (f"histogram_quantile(0.95, sum by (task, le) (rate(celery_task_runtime_seconds_bucket{{{task}}}[5m])))", "{{task}}"), "s"))
        .with_panel(graph("Wait in the queue: 95 % are faster", (f"histogram_quantile(0.95, sum by (task, le) (rate(celery_task_queue_wait_seconds_bucket{{{task}}}[5m])))", "{{task}}"), "s"))
        .with_panel(graph("Failed per second", (f"sum by (task, exception) (rate(celery_worker_tasks_failed_total{{{task}}}[5m])) or vector(0)", "{{task}} {{exception}}"), "ops", link="kombu-dead-letters"))
        .with_panel(graph("Failure ratio", [
            ("celery:task_failure_ratio:rate5m", "5 minutes"), ("celery:task_failure_ratio:rate1h", "1 hour"),
            ("celery:task_failure_ratio:rate6h", "6 hours"),
        ], "percentunit", steps=((0.144, "red"),), alerts="TaskFailuresFast TaskFailuresSlow"))
        .with_panel(graph("Retried, revoked, rejected per second", [
            (f"sum(rate(celery_worker_tasks_retried_total{{{task}}}[5m])) or vector(0)", "retried"),
            (f"sum(rate(celery_worker_tasks_revoked_total{{{task}}}[5m])) or vector(0)", "revoked"),
            (f"sum(rate(celery_worker_tasks_rejected_total{{{task}}}[5m])) or vector(0)", "rejected"),
        ], "ops"))
        .with_panel(graph("Sent, received, started per second", [
            (f"sum(rate(celery_tasks_sent_total{{{task}}}[5m]))", "sent"),
            (f"sum(rate(celery_worker_tasks_received_total{{{task}}}[5m]))", "received"),
            (f"sum(rate(celery_worker_tasks_started_total{{{task}}}[5m]))", "started"),
        ], "ops"))
    )  # fmt: skip


def lag() -> dashboard.Dashboard:
    """How far behind is each partition?"""
    chosen = 'group=~"$group",topic=~"$topic"'
    return (
        board("lag", "Partitions and lag", "How far behind each partition is, who owns it, how full it is.")
        .with_variable(variable("group", "label_values(kafka_consumer_group_lag, group)", label="Group"))
        .with_variable(variable("topic", 'label_values(kafka_consumer_group_lag{group=~"$group"}, topic)', label="Topic"))
        .with_panel(graph("Partition lag", (f"max by (topic, partition) (kafka_consumer_group_lag{{{chosen}}})", "{{topic}}-{{partition}}"), steps=((1000, "red"),),
                          help="Above 1000 for 2 minutes pages (PartitionLagHigh).", alerts="PartitionLagHigh"))
        .with_panel(graph("Partition lag in seconds", (f"max by (topic, partition) (kafka_consumer_group_lag_seconds{{{chosen}}})", "{{topic}}-{{partition}}"), "s", steps=((600, "red"),), alerts="PartitionLagOld"))
        .with_panel(graph("Done per second", (f"sum by (topic, partition) (rate(kafka_consumer_group_committed_offset{{{chosen}}}[5m]))", "{{topic}}-{{partition}}"), "ops", alerts="PartitionStuck"))
        .with_panel(graph("Queued per second", ('sum by (topic, partition) (rate(kafka_topic_partition_end_offset{topic=~"$topic"}[5m]))', "{{topic}}-{{partition}}"), "ops"))
        .with_panel(graph("Time until the lag is gone", (f"max by (group, topic) (kafka_consumer_group_drain_seconds{{{chosen}}})", "{{group}} {{topic}}"), "s"))
        .with_panel(graph("Owners", (f"max by (topic, partition) (kafka_consumer_group_partition_owners{{{chosen}}})", "{{topic}}-{{partition}}"), steps=((2, "red"),), alerts="PartitionTwoOwners"))
        .with_panel(graph("In flight", ("sum by (topic, partition) (kombu_kafka_in_flight)", "{{topic}}-{{partition}}")))
        .with_panel(graph("Watermark distance", ("max by (topic, partition) (kombu_kafka_watermark_distance)", "{{topic}}-{{partition}}")))
        .with_panel(graph("Fetched and waiting", ("sum by (topic, partition) (kombu_kafka_buffered)", "{{topic}}-{{partition}}")))
        .with_panel(graph("Commit metadata in use", ("max by (topic, partition) (kombu_kafka_metadata_fill_ratio)", "{{topic}}-{{partition}}"), "percentunit", steps=((0.75, "red"),)))
        .with_panel(graph("Redeliveries per second", ("sum by (topic, partition) (rate(kombu_kafka_redeliveries_total[5m]))", "{{topic}}-{{partition}}"), "ops"))
        .with_panel(graph("Commit latency", ("rate(kombu_kafka_commit_seconds_total[5m]) / rate(kombu_kafka_commits_total[5m])", "{{instance}}"), "s"))
        .with_panel(graph("Fetch latency", ("max by (instance) (kafka_consumer_consumer_fetch_manager_metrics_fetch_latency_avg)", "{{instance}}"), "ms"))
        .with_panel(graph("Journal", ("max by (topic, partition) (kombu_kafka_journal_lines)", "{{topic}}-{{partition}}")))
        .with_panel(graph("Deleted unread within an hour", ("sum by (topic, partition) (increase(kombu_kafka_records_lost_total[1h]))", "{{topic}}-{{partition}}"), steps=((1, "red"),), alerts="TasksDeletedUnread"))
    )  # fmt: skip


def dead_letters() -> dashboard.Dashboard:
    """What failed for good."""
    return (
        board("dead-letters", "Dead letters", "What failed for good, and what became of it.", since="now-24h")
        .with_panel(number("Open", "sum(celery_dead_letters_pending)", steps=((1, "orange"),), width=6, help="Neither replayed nor skipped."))
        .with_panel(number("In the topic", "sum(celery_dead_letters)", width=6))
        .with_panel(number("Oldest open", "max(celery_dead_letters_oldest_age_seconds)", "s", steps=((86400, "orange"), (432000, "red")), width=6,
                           help="The topic keeps 7 days.", alerts="DeadLettersOld"))
        .with_panel(number("Arrived, 1 hour", "sum(increase(celery_dead_letters_arrived_total[1h])) or vector(0)", steps=((1, "orange"),), width=6))
        .with_panel(graph("Arriving per minute, by task", ("sum by (task) (60 * rate(celery_dead_letters_arrived_total[5m])) or vector(0)", "{{task}}"), alerts="DeadLettersArriving"))
        .with_panel(graph("Arriving per minute, by exception", ("sum by (exception, reason) (60 * rate(celery_dead_letters_arrived_total[5m])) or vector(0)", "{{exception}} {{reason}}")))
        .with_panel(graph("Open", ("sum by (topic) (celery_dead_letters_pending)", "{{topic}}")))
        .with_panel(graph("Replayed and skipped", [
            ("sum(increase(celery_dead_letters_replayed_total[1h])) or vector(0)", "replayed within an hour"),
            ("sum(increase(celery_dead_letters_skipped_total[1h])) or vector(0)", "skipped within an hour"),
        ]))
    )  # fmt: skip


def brokers() -> dashboard.Dashboard:
    """The Kafka cluster."""
    server = "kafka_server_brokertopicmetrics"
    return (
        board("brokers", "Kafka brokers", "Brokers and controllers, from jmx_exporter.")
        .with_panel(number("Brokers up", 'sum(up{job="kafka"})', steps=UP, base="red", alerts="KafkaBrokerDown"))
        .with_panel(number("Active controllers", "sum(kafka_controller_kafkacontroller_activecontrollercount)", steps=((1, "green"), (2, "red")), base="red", alerts="KafkaNoController"))
        .with_panel(number("Offline partitions", "max(kafka_controller_kafkacontroller_offlinepartitionscount)", steps=FAULTS, alerts="KafkaOfflinePartitions"))
        .with_panel(number("Under-replicated", "sum(kafka_server_replicamanager_underreplicatedpartitions)", steps=((1, "orange"),), alerts="KafkaUnderReplicated"))
        .with_panel(number("Below min ISR", "sum(kafka_server_replicamanager_underminisrpartitioncount)", steps=FAULTS, alerts="KafkaUnderMinIsr"))
        .with_panel(number("Failed disks", "sum(kafka_log_logmanager_offlinelogdirectorycount)", steps=FAULTS, alerts="KafkaLogDirectoryOffline"))
        .with_panel(graph("Messages in per second", (f"sum by (instance) (rate({server}_messagesin_total[5m]))", "{{instance}}"), "ops"))
        .with_panel(graph("Bytes in and out", [
            (f"sum(rate({server}_bytesin_total[5m]))", "in"), (f"sum(rate({server}_bytesout_total[5m]))", "out"),
            (f"sum(rate({server}_replicationbytesin_total[5m]))", "replication in"),
        ], "Bps"))
        .with_panel(graph("Requests: 99 % are faster", ('max by (request) (kafka_network_requestmetrics_totaltimems{statistic="99thPercentile"})', "{{request}}"), "ms"))
        .with_panel(graph("Failed requests per second", [
            (f"sum by (instance) (rate({server}_failedproducerequests_total[5m]))", "produce {{instance}}"),
            (f"sum by (instance) (rate({server}_failedfetchrequests_total[5m]))", "fetch {{instance}}"),
        ], "ops"))
        .with_panel(graph("Idle request handlers", ("min by (instance) (kafka_server_kafkarequesthandlerpool_requesthandleravgidlepercent)", "{{instance}}"), "percentunit"))
        .with_panel(graph("Idle network threads", ("min by (instance) (kafka_network_socketserver_networkprocessoravgidlepercent)", "{{instance}}"), "percentunit"))
        .with_panel(graph("ISR shrinks and expands per second", [
            ("sum by (instance) (rate(kafka_server_replicamanager_isrshrinks_total[5m]))", "shrinks {{instance}}"),
            ("sum by (instance) (rate(kafka_server_replicamanager_isrexpands_total[5m]))", "expands {{instance}}"),
        ], "ops", alerts="KafkaIsrShrinking"))
        .with_panel(graph("Connections", ("sum by (instance) (kafka_server_socket_server_connections)", "{{instance}}")))
        .with_panel(graph("Partitions and leaders", [
            ("kafka_server_replicamanager_partitioncount", "partitions {{instance}}"), ("kafka_server_replicamanager_leadercount", "leaders {{instance}}"),
        ]))
        .with_panel(graph("Behind the controller's log", ("max by (instance) (kafka_server_broker_metadata_last_applied_record_lag_ms)", "{{instance}}"), "ms"))
        .with_panel(graph("Heap", ('sum by (instance) (jvm_memory_used_bytes{area="heap",job="kafka"})', "{{instance}}"), "bytes"))
        .with_panel(graph("Garbage collection", ('sum by (instance) (rate(jvm_gc_collection_seconds_sum{job="kafka"}[5m]))', "{{instance}}"), "percentunit", help="Part of the time."))
    )  # fmt: skip


def hosts() -> dashboard.Dashboard:
    """The machines."""
    real = 'fstype!~"tmpfs|ramfs|overlay|squashfs",instance=~"$instance"'
    chosen = 'instance=~"$instance"'
    return (
        board("hosts", "Hosts", "Machines, from node_exporter.")
        .with_variable(variable("instance", "label_values(node_uname_info, instance)", label="Host"))
        .with_panel(graph("CPU in use", (f'1 - avg by (instance) (rate(node_cpu_seconds_total{{mode="idle",{chosen}}}[5m]))', "{{instance}}"), "percentunit", steps=((0.9, "red"),)))
        .with_panel(graph("Load per core", (f"node_load5{{{chosen}}} / on (instance) group_left () count by (instance) (node_cpu_seconds_total{{mode=\"idle\",{chosen}}})", "{{instance}}")))
        .with_panel(graph("Memory in use", (f"1 - node_memory_MemAvailable_bytes{{{chosen}}} / node_memory_MemTotal_bytes{{{chosen}}}", "{{instance}}"), "percentunit", steps=((0.9, "red"),)))
        .with_panel(graph("Disk space in use", (f"1 - node_filesystem_avail_bytes{{{real}}} / node_filesystem_size_bytes{{{real}}}", "{{instance}} {{mountpoint}}"), "percentunit", steps=((0.85, "red"),), alerts="DiskFillsIn24Hours"))
        .with_panel(graph("Disk busy", (f"rate(node_disk_io_time_seconds_total{{{chosen}}}[5m])", "{{instance}} {{device}}"), "percentunit"))
        .with_panel(graph("Network in", (f'sum by (instance) (rate(node_network_receive_bytes_total{{device!="lo",{chosen}}}[5m]))', "{{instance}}"), "Bps"))
        .with_panel(graph("Network out", (f'sum by (instance) (rate(node_network_transmit_bytes_total{{device!="lo",{chosen}}}[5m]))', "{{instance}}"), "Bps"))
        .with_panel(graph("Clock offset", (f"abs(node_timex_offset_seconds{{{chosen}}})", "{{instance}}"), "s", steps=((0.1, "red"),), alerts="ClockWrong"))
        .with_panel(number("Certificates that end within 14 days", "count(celery_exporter_certificate_expiry_timestamp_seconds - time() < 14 * 86400 or min by (instance, file) (kombu_kafka_certificate_expiry_timestamp_seconds) - time() < 14 * 86400) or vector(0)",
                           steps=FAULTS, alerts="CertificateExpires", width=12))
    )  # fmt: skip


BOARDS = {
    "overview": overview,
    "tasks": tasks,
    "lag": lag,
    "dead-letters": dead_letters,
    "brokers": brokers,
    "hosts": hosts,
}


def text(make: Callable[[], dashboard.Dashboard]) -> str:
    """A dashboard as Grafana reads it; its panels are numbered, so that links can name them."""
    built = make().build()
    for number, panel in enumerate(built.panels or (), 1):
        panel.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description="Write Grafana's dashboards.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing, fail where one differs"
    )
    check = parser.parse_args().check
    wanted = {TARGET / f"{name}.json": text(make) for name, make in BOARDS.items()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    stale += [path for path in TARGET.glob("*.json") if path not in wanted]
    for path in stale:
        if check:
            print(f"{path.name} is out of date: run scripts/dashboards.py.", file=sys.stderr)
        elif path in wanted:
            path.write_text(wanted[path])
        else:
            path.unlink()
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
