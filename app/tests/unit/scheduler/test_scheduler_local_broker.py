"""Finding a Kafka to run: each fault says what to do."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from scheduler import local_broker
from scheduler.local_broker import LocalBrokerError, find_home


@pytest.fixture(autouse=True)
def java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")


def _archive(path: Path, *directories: str) -> Path:
    archive = path / "kafka.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for directory in directories:
            (path / "in" / directory).mkdir(parents=True)
            tar.add(path / "in" / directory, directory)
    return archive


def test_an_unpacked_kafka(tmp_path: Path) -> None:
    (tmp_path / "libs").mkdir()
    assert find_home({"KAFKA_HOME": str(tmp_path)}) == tmp_path


def test_an_archive_is_unpacked_once_for_each_state_of_it(tmp_path: Path) -> None:
    archive = _archive(tmp_path, "kafka_2.13-4.3.0/libs")
    home = find_home({"KAFKA_ARCHIVE": str(archive)})
    assert home.name == "kafka_2.13-4.3.0"
    (home / "marker").touch()
    assert (find_home({"KAFKA_ARCHIVE": str(archive)}) / "marker").exists()
    os.utime(archive, (1, 1))  # another time, however coarse the file system's clock is
    renewed = find_home({"KAFKA_ARCHIVE": str(archive)})
    assert renewed != home
    assert not home.exists()


def test_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(LocalBrokerError, match="install a Java 17 runtime"):
        find_home({})


def test_without_an_archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_broker, "_built_archive", lambda: None)
    with pytest.raises(LocalBrokerError, match=r"files/kafka/build_archive\.py"):
        find_home({})
    with pytest.raises(LocalBrokerError, match=r"no Kafka archive at .*gone\.tgz"):
        find_home({"KAFKA_ARCHIVE": str(tmp_path / "gone.tgz")})


def test_what_is_no_kafka(tmp_path: Path) -> None:
    with pytest.raises(LocalBrokerError, match="holds no libs/"):
        find_home({"KAFKA_HOME": str(tmp_path)})
    with pytest.raises(LocalBrokerError, match="is not laid out as Kafka's archive"):
        find_home({"KAFKA_ARCHIVE": str(_archive(tmp_path, "other/lib"))})
    broken = tmp_path / "broken.tgz"
    broken.write_bytes(b"no archive")
    with pytest.raises(LocalBrokerError, match="can't be unpacked"):
        find_home({"KAFKA_ARCHIVE": str(broken)})
