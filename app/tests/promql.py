"""Which metrics the rules and dashboards of this repository use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

__all__ = ["BROKER", "DASHBOARDS", "OWN", "ROOT", "RULES", "names", "queries", "recorded", "used"]

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "files" / "prometheus" / "rules").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "files" / "grafana" / "dashboards").glob("*.json"))

#: Metrics that this project serves itself.
OWN = re.compile(r"\b(?:celery_|kombu_kafka_|kafka_consumer_group_|kafka_topic_partition_)\w+")
#: Metrics of a broker and of its Java.
BROKER = re.compile(r"\b(?:kafka_(?:server|controller|network|log)_|jvm_|jmx_)\w+")


def rules() -> list[dict[str, Any]]:
    """Return every rule."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> set[str]:
    """Return the names that recording rules make."""
    return {rule["record"] for rule in rules() if "record" in rule}


def queries(dashboard: Path) -> list[str]:
    """Return every query of a dashboard, its variables' too."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("expr", "query", "definition") and isinstance(value, str):
                    found.append(value)
                else:
                    walk(value)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(json.loads(dashboard.read_text()))
    return found


def used() -> list[str]:
    """Return every expression of rules and dashboards."""
    expressions = [str(rule["expr"]) for rule in rules()]
    return expressions + [query for file in DASHBOARDS for query in queries(file)]


def names(kind: re.Pattern[str]) -> set[str]:
    """Return the metrics of a kind that are used anywhere."""
    return {name for expression in used() for name in kind.findall(expression)}
