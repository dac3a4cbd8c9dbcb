"""Dashboards: made from code, of metrics that exist, in expressions that Prometheus can read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml  # type: ignore[import-untyped]

from scheduler import metrics
from tests.promql import DASHBOARDS, OWN, ROOT, names, queries, recorded, rules, used

BOARDS = {file.stem: json.loads(file.read_text()) for file in DASHBOARDS}
#: Where the role puts the address at which people read the pages of alerts.
RUNBOOK = "https://runbooks.invalid"
METRIC = r"\b(?:celery|kombu|kafka|node)_\w+|\bcelery:[\w:]+|\bup\b|\bALERTS\b"
#: What Debian's node_exporter serves without further collectors, as far as it is used.
NODE = {
    "node_cpu_seconds_total",
    "node_disk_io_time_seconds_total",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "node_load5",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemTotal_bytes",
    "node_network_receive_bytes_total",
    "node_network_transmit_bytes_total",
    "node_timex_offset_seconds",
    "node_timex_sync_status",
    "node_uname_info",
}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_the_files_are_made_from_the_code() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "dashboards.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_dashboards_of_the_plan_are_there() -> None:
    assert {board["title"] for board in BOARDS.values()} == {
        "Overview",
        "Tasks",
        "Partitions and lag",
        "Dead letters",
        "Kafka brokers",
        "Hosts",
    }


def test_only_metrics_that_exist_are_used() -> None:
    ours = {series for metric in metrics.ALL.values() for series in metric.series}
    assert names(OWN) <= ours
    assert names(re.compile(r"\bnode_\w+")) <= NODE
    assert names(re.compile(r"\bcelery:\w+(?::\w+)*")) <= recorded()


def test_no_metric_of_another_kind_is_used() -> None:
    known = re.compile(r"^(?:celery_|kombu_kafka_|kafka_|jvm_|node_|up$|ALERTS$|celery:)")
    for expression in used():
        bare = re.sub(r'"[^"]*"', "", expression)
        bare = re.sub(r"\b(?:by|on|without|group_left|group_right) ?\([^)]*\)", "", bare)
        bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
        if bare.startswith("label_values"):
            bare = bare.removeprefix("label_values(").split(",")[0]
        for word in re.findall(r"(?<![\w$:])[a-zA-Z_][\w:]*(?!\w*\s*\()", bare):
            if word in {"and", "or", "unless", "offset", "le", "group_left"} or re.match(
                "^e?[0-9]", word
            ):
                continue
            assert known.match(word), (word, expression)


def test_mission_metrics_are_drawn() -> None:
    drawn = {name for file in DASHBOARDS for query in queries(file) for name in OWN.findall(query)}
    assert {
        "celery_worker_tasks_succeeded_total",
        "celery_task_runtime_seconds_sum",
        "kafka_consumer_group_lag",
    } <= drawn


def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    expressions = [
        re.sub(r"\$\w+", "x", query)
        for file in DASHBOARDS
        for query in queries(file)
        if not query.startswith("label_values")
    ]
    assert len(expressions) > 50
    group = {
        "name": "queries",
        "rules": [{"record": f"q:{i}", "expr": text} for i, text in enumerate(expressions)],
    }
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [group]}))
    command = ["promtool", "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_a_dashboard_is_whole(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == f"kombu-{name}"
    assert not board["editable"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(board):
        assert panel["title"]
        assert panel["targets"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]


def test_links_lead_somewhere() -> None:
    uids = {board["uid"] for board in BOARDS.values()}
    linked = {
        link["url"].removeprefix("/d/")
        for board in BOARDS.values()
        for panel in panels(board)
        for link in panel.get("links") or ()
        if not link["url"].startswith(RUNBOOK)
    }
    linked |= {
        re.split(r"[?/]", rule["annotations"]["dashboard_url"].removeprefix("/d/"))[0]
        for rule in rules()
        if "alert" in rule
    }
    assert linked
    assert linked <= uids


def test_an_alert_leads_to_a_panel_of_what_it_is_about_and_that_to_its_page() -> None:
    boards = {board["uid"]: board for board in BOARDS.values()}
    alerts = [rule for rule in rules() if "alert" in rule]
    for alert in alerts:
        name, url = alert["alert"], urlsplit(alert["annotations"]["dashboard_url"])
        board = boards[url.path.removeprefix("/d/")]
        [number] = parse_qs(url.query)["viewPanel"]
        [panel] = [panel for panel in panels(board) if str(panel["id"]) == number]
        pages = {link["title"]: link["url"] for link in panel["links"]}
        assert pages[name] == f"{RUNBOOK}/docs/runbooks/{name}.md"
        about = set(re.findall(METRIC, alert["expr"]))
        assert not about or about & set(re.findall(METRIC, str(panel["targets"]))), name
    # And no panel names one that there isn't.
    linked = {
        link["url"]
        for board in BOARDS.values()
        for panel in panels(board)
        for link in panel["links"]
        if link["url"].startswith(RUNBOOK)
    }
    assert len(linked) == len(alerts)
