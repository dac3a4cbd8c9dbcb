"""Whom Alertmanager tells what: each alert's way through its routes, asked of amtool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.promql import ROOT, rules

ALERTS = [rule for rule in rules() if "alert" in rule]


def amtool(*arguments: str | Path) -> str:
    command = ["amtool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def configuration(rendered: Path, host: str) -> dict[str, Any]:
    return dict(yaml.safe_load((rendered / host / "alertmanager.yml").read_text()))


@pytest.mark.parametrize("host", ["clear", "secured"])
def test_alertmanager_accepts_it_and_its_words(rendered: Path, host: str, tmp_path: Path) -> None:
    words = ROOT / "files" / "alertmanager" / "pagerduty.tmpl"
    file = tmp_path / "alertmanager.yml"
    text = (rendered / host / "alertmanager.yml").read_text()
    assert "/etc/prometheus/pagerduty.tmpl" in text
    file.write_text(text.replace("/etc/prometheus/pagerduty.tmpl", str(words)))
    assert "1 templates" in amtool("check-config", file)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_goes_to_one_receiver(rendered: Path, alert: dict[str, Any]) -> None:
    severity = alert["labels"]["severity"]
    receiver = {"critical": "pagerduty", "warning": "warnings", "none": "watchdog"}[severity]
    labels = [f"{name}={value}" for name, value in alert["labels"].items()]
    amtool(
        "config", "routes", "test", f"--verify.receivers={receiver}",
        f"--config.file={rendered / 'secured' / 'alertmanager.yml'}",
        f"alertname={alert['alert']}", *labels,
    )  # fmt: skip


def test_without_a_key_nothing_pages(rendered: Path) -> None:
    found = configuration(rendered, "clear")
    assert "pagerduty" not in {receiver["name"] for receiver in found["receivers"]}
    amtool(
        "config", "routes", "test", "--verify.receivers=warnings",
        f"--config.file={rendered / 'clear' / 'alertmanager.yml'}", "severity=critical",
    )  # fmt: skip


def test_an_incident_is_one_topic_and_cause_and_its_end_is_told(rendered: Path) -> None:
    found = configuration(rendered, "secured")
    assert found["route"]["group_by"] == ["cause", "topic"]
    [pages] = [one for one in found["receivers"] if one["name"] == "pagerduty"]
    [to] = pages["pagerduty_configs"]
    assert to["send_resolved"]
    assert to["routing_key_file"] == "/etc/prometheus/pagerduty-routing-key"
    assert "0123456789abcdef" not in (rendered / "secured" / "alertmanager.yml").read_text()
    links = {link["text"]: link["href"] for link in to["links"]}
    assert links["Runbook"].startswith("https://git.example.com/")
    assert links["Dashboard"].startswith("https://secured:3000{{")


def test_what_is_inhibited_exists(rendered: Path) -> None:
    values = {
        "alertname": {alert["alert"] for alert in ALERTS},
        "cause": {alert["labels"]["cause"] for alert in ALERTS},
        "severity": {alert["labels"]["severity"] for alert in ALERTS},
    }
    matchers = [
        matcher
        for rule in configuration(rendered, "secured")["inhibit_rules"]
        for side in ("source_matchers", "target_matchers")
        for matcher in rule[side]
    ]
    assert matchers
    for matcher in matchers:
        [(label, named)] = re.findall(r'^(\w+) =~? "(.+)"$', matcher)
        assert set(named.split("|")) <= values[label], matcher
