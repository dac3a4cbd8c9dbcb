"""Alert rules: Prometheus accepts them, each fires and does not, each has its page."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from kombu_kafka.delay.topics import group_of
from kombu_kafka.options import Options
from scheduler import metrics

ROOT = Path(__file__).parents[4]
RULES = sorted((ROOT / "files" / "prometheus" / "rules").glob("*.yml"))
TESTS = sorted((ROOT / "files" / "prometheus" / "tests").glob("*.yml"))
RUNBOOKS = ROOT / "docs" / "runbooks"


def rules() -> list[dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]


def promtool(*arguments: str | Path) -> None:
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_for_what_is_wrong_and_for_nothing_else(file: Path) -> None:
    promtool("test", "rules", file)


def test_each_alert_is_tested_to_fire_and_not_to() -> None:
    tests = [test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    fired: set[str] = set()
    silent: set[str] = set()
    for each in (each for test in tests for each in test["promql_expr_test"]):
        if match := re.search('alertname="(.+?)"', each["expr"]):
            (fired if each.get("exp_samples") else silent).add(match[1])
    assert fired == {alert["alert"] for alert in ALERTS}
    assert silent == fired - {"Watchdog"}  # which is always there


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "none"}
    assert alert["labels"]["cause"]  # what Alertmanager makes incidents by
    notes = alert["annotations"]
    assert notes["summary"]
    assert notes["description"].endswith(".")
    assert notes["dashboard_url"].startswith("/d/kombu-")
    assert notes["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"
    text = (ROOT / notes["runbook_url"]).read_text()
    assert text.startswith(f"# {alert['alert']}\n")
    headings = re.findall("^## (.+)$", text, re.MULTILINE)
    assert headings == ["What it means", "What to look at first", "What to do"]
    assert re.search("^    \\S", text, re.MULTILINE), "no command to run"


def test_each_page_belongs_to_an_alert() -> None:
    pages = {page.stem for page in RUNBOOKS.glob("*.md")}
    assert pages == {alert["alert"] for alert in ALERTS}
    linked = {
        name
        for page in RUNBOOKS.glob("*.md")
        for name in re.findall(r"\]\((\w+)\.md\)", page.read_text())
    }
    assert linked <= pages


def test_what_waits_for_its_time_is_nobodys_lag() -> None:
    group = group_of(Options(hosts=("kafka1:9092",), delay_topic="celery_delay"))
    apart = [
        pattern
        for alert in ALERTS
        for pattern in re.findall(
            r'kafka_consumer_group_(?:lag|lag_seconds|committed_offset)\{group!~"([^"]+)"',
            alert["expr"],
        )
    ]
    assert len(apart) == 3
    assert all(re.fullmatch(pattern, group) for pattern in apart)


def test_what_a_page_asks_is_served_and_asked_as_it_wants_to_be() -> None:
    inventory = ROOT / "inventories" / "prod" / "group_vars" / "all" / "main.yml"
    ports = {v for k, v in yaml.safe_load(inventory.read_text()).items() if k.endswith("_port")}
    workers = yaml.safe_load(inventory.read_text())["celery_worker_metrics_port"]
    for page in RUNBOOKS.glob("*.md"):
        text = page.read_text()
        assert "curl" not in text, page  # which knows neither the password nor who vouches
        for port in map(int, re.findall(r"metrics '?(\d+)/", text)):
            assert port in ports or workers <= port < workers + 10, page


def test_the_page_of_the_mission() -> None:
    [alert] = [alert for alert in ALERTS if alert["alert"] == "PartitionLagHigh"]
    assert alert["for"] == "2m"
    assert alert["expr"].endswith("> 1000")
    assert alert["labels"]["severity"] == "critical"


def test_rules_use_no_metric_of_ours_that_is_not_defined() -> None:
    ours = {series for metric in metrics.ALL.values() for series in metric.series}
    text = " ".join(rule["expr"] for rule in rules())
    used = set(re.findall(r"\b(?:celery|kombu_kafka|kafka_consumer_group|kafka_topic)_\w+", text))
    assert used
    assert used <= ours
