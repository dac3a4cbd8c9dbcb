"""What Grafana is given: settings, data source, dashboards, unit, each as the others expect it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.promql import DASHBOARDS, ROOT

HOSTS = ("clear", "secured")


def settings(rendered: Path, host: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read(rendered / host / "grafana.ini")
    return parser


def data_source(rendered: Path, host: str) -> dict[str, Any]:
    found = yaml.safe_load((rendered / host / "prometheus.yaml").read_text())
    assert found["apiVersion"] == 1
    [one] = found["datasources"]
    return dict(one)


@pytest.mark.parametrize("host", HOSTS)
def test_nobody_gets_in_without_the_vaults_password(rendered: Path, host: str) -> None:
    ini = settings(rendered, host)
    assert not ini.getboolean("auth.anonymous", "enabled")
    assert not ini.getboolean("users", "allow_sign_up")
    assert ini["security"]["admin_password"] == "$__file{/etc/grafana/admin-password}"


def test_tls_is_spoken_where_the_host_has_a_certificate(rendered: Path) -> None:
    clear, secured = (settings(rendered, host) for host in HOSTS)
    assert clear["server"]["protocol"] == "http"
    assert clear["server"]["root_url"] == "http://clear:3000/"
    assert secured["server"]["root_url"] == "https://secured:3000/"
    assert "cert_file" not in clear["server"]
    assert not clear.getboolean("security", "cookie_secure")
    assert secured["server"]["protocol"] == "https"
    assert secured["server"]["cert_file"] == "/etc/grafana/access/tls.crt"
    assert secured["server"]["cert_key"] == "/etc/grafana/access/tls.key"
    assert secured.getboolean("security", "cookie_secure")


def test_the_data_source_is_the_one_that_panels_name(rendered: Path) -> None:
    for host in HOSTS:
        source = data_source(rendered, host)
        assert (source["type"], source["uid"]) == ("prometheus", "prometheus")
        for file in DASHBOARDS:
            named = re.findall(r'"datasource": (\{[^}]+\})', file.read_text())
            assert named
            assert {json.loads(each)["uid"] for each in named} == {source["uid"]}


def test_the_data_source_logs_in_where_prometheus_wants_it(rendered: Path) -> None:
    clear, secured = (data_source(rendered, host) for host in HOSTS)
    assert clear["url"] == "http://clear:9090"
    assert "basicAuth" not in clear
    assert "secureJsonData" not in clear
    assert secured["url"] == "https://secured:9090"
    assert secured["basicAuth"]
    assert secured["basicAuthUser"] == "prometheus"
    assert secured["jsonData"]["tlsAuthWithCACert"]
    assert secured["secureJsonData"] == {
        "basicAuthPassword": "$__file{/etc/grafana/access/password}",
        "tlsCACert": "$__file{/etc/ssl/certs/ca.pem}",
    }


@pytest.mark.parametrize("host", HOSTS)
def test_dashboards_are_taken_from_where_they_are_put(rendered: Path, host: str) -> None:
    provided = yaml.safe_load((rendered / host / "celery-on-kafka.yaml").read_text())
    [provider] = provided["providers"]
    assert provider["type"] == "file"
    assert not provider["allowUiUpdates"]
    directory = provider["options"]["path"]
    home = Path(settings(rendered, host)["dashboards"]["default_home_dashboard_path"])
    assert str(home.parent) == directory
    assert home.name in {file.name for file in DASHBOARDS}
    tasks = (ROOT / "roles" / "grafana" / "tasks" / "configure.yml").read_text()
    assert 'dest: "{{ _grafana_config }}/dashboards/' in tasks
    assert directory == "/etc/grafana/dashboards"


@pytest.mark.parametrize("host", HOSTS)
def test_systemd_understands_the_unit(rendered: Path, host: str, tmp_path: Path) -> None:
    text = (rendered / host / "grafana.service").read_text()
    [command] = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", text, re.MULTILINE)
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["/opt/grafana/current/bin/grafana", "server"]
    assert "--config=/etc/grafana/grafana.ini" in words
    assert "cfg:default.paths.provisioning=/etc/grafana/provisioning" in words
    # It writes nowhere but where systemd lets it.
    assert "ProtectSystem=strict" in text
    assert "StateDirectory=grafana\n" in text
    assert "cfg:default.paths.data=/var/lib/grafana" in words
    assert "LogsDirectory=grafana\n" in text
    assert "cfg:default.paths.logs=/var/log/grafana" in words
    unit = tmp_path / "grafana.service"
    unit.write_text(text.replace(words[0], "/bin/true"))  # no archive, no program
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(unit) not in done.stderr


@pytest.mark.parametrize("host", HOSTS)
def test_no_secret_is_in_a_file_that_more_than_one_may_read(rendered: Path, host: str) -> None:
    texts = [file.read_text() for file in (rendered / host).iterdir()]
    assert texts
    assert not [text for text in texts if "a secret for" in text]
