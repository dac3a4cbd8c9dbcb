"""What roles write, rendered by Ansible itself, with TLS and passwords and without."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.promql import ROOT

#: What is rendered of each role.
TEMPLATES = {
    "grafana": [
        "grafana.ini.j2",
        "grafana.service.j2",
        "provisioning/dashboards/celery-on-kafka.yaml.j2",
        "provisioning/datasources/prometheus.yaml.j2",
    ],
    "alertmanager": ["alertmanager.yml.j2"],
    "node_exporter": ["metrics.py.j2"],
}
COMMON = {
    "ansible_connection": "local",
    "grafana_port": 3000,
    "prometheus_port": 9090,
    "alertmanager_port": 9093,
    "monitoring_user": "prometheus",
}
HOSTS: dict[str, dict[str, Any]] = {
    "clear": {
        "monitoring_tls_certificate": "",
        "monitoring_tls_ca": "",
        "monitoring_password": "",
    },
    "secured": {
        "monitoring_tls_certificate": "/etc/ssl/certs/secured.pem",
        "monitoring_tls_ca": "/etc/ssl/certs/ca.pem",
        "monitoring_password": "a secret for scrapes",
        "grafana_admin_password": "a secret for people",
        "alertmanager_pagerduty_routing_key": "0123456789abcdef0123456789abcdef",
        "alertmanager_runbooks_url": "https://git.example.com",
        "alertmanager_watchdog_url": "https://switch.example.com",
        "alertmanager_warning_receiver": {"webhook_configs": [{"url": "https://w.example.com"}]},
    },
}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with HOST/TEMPLATE, without its .j2, of each."""
    directory: Path = tmp_path_factory.mktemp("rendered")
    variables: dict[str, Any] = {}
    plays = []
    for role, templates in TEMPLATES.items():
        path = ROOT / "roles" / role
        plays.append(
            {
                "hosts": "all",
                "gather_facts": False,
                "vars": {"role_path": str(path)},
                "tasks": [
                    {"include_vars": str(path / "vars" / "main.yml")},
                    *({
                        "template": {
                            "src": str(path / "templates" / name),
                            "dest": f"{directory}/{{{{ inventory_hostname }}}}/{Path(name).name[:-3]}",
                            "mode": "0600",
                        },
                    } for name in templates),
                ],
            }
        )  # fmt: skip
        # As a role's defaults are, below what a host says.
        variables |= yaml.safe_load((path / "defaults" / "main.yml").read_text())
    inventory = {"monitoring": {"hosts": HOSTS, "vars": variables | COMMON}}
    (directory / "hosts.yml").write_text(yaml.safe_dump(inventory))
    for host in HOSTS:
        (directory / host).mkdir()
    playbook = directory / "render.yml"
    playbook.write_text(yaml.safe_dump(plays))
    done = subprocess.run(
        ["ansible-playbook", "-i", directory / "hosts.yml", playbook],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return directory
