"""The Kafka archive: same input, same bytes; what differs from the committed list is named."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def builder(from_role: Callable[[str], ModuleType]) -> ModuleType:
    return from_role("../files/kafka/build_archive.py")


def test_the_name_comes_from_the_pom(builder: ModuleType) -> None:
    assert builder.archive_name(builder.POM.read_text()) == "kafka_2.13-4.3.0"


def test_a_pom_without_versions_is_refused(builder: ModuleType) -> None:
    with pytest.raises(builder.BuildError, match=r"lacks scala\.binary\.version"):
        builder.archive_name("<project/>")


def test_the_committed_list_is_whole(builder: ModuleType) -> None:
    checksums = builder.parse_checksums(builder.CHECKSUMS.read_text())

    assert {"kafka_2.13-4.3.0.jar", "kafka-tools-4.3.0.jar"} <= checksums.keys()
    assert any(jar.startswith("log4j-slf4j-impl-") for jar in checksums)


@pytest.mark.parametrize("line", ["", "abc  x.jar", f"{'0' * 64} x.jar", f"{'0' * 64}  "])
def test_a_broken_list_is_refused_with_its_line(builder: ModuleType, line: str) -> None:
    good = f"{'1' * 64}  good.jar"

    with pytest.raises(builder.BuildError, match="line 2"):
        builder.parse_checksums(f"{good}\n{line}\n")


def test_jars_that_differ_are_named(builder: ModuleType) -> None:
    with pytest.raises(builder.BuildError) as caught:
        builder.compare({"a.jar": "1", "gone.jar": "2"}, {"a.jar": "9", "new.jar": "3"})

    for said in ("a.jar has sha256 9, not 1", "gone.jar is missing", "new.jar is not in the list"):
        assert said in str(caught.value)


def test_same_input_same_bytes(builder: ModuleType, tmp_path: Path) -> None:
    jar, script = tmp_path / "x.jar", tmp_path / "x.sh"
    jar.write_text("jar")
    script.write_text("script")
    folders = {"bin": [script], "libs": [jar]}

    first, second = tmp_path / "1.tgz", tmp_path / "deep" / "2.tgz"
    builder.write_archive(first, "kafka", "digest", folders)
    jar.touch()
    builder.write_archive(second, "kafka", "digest", folders)

    assert first.read_bytes() == second.read_bytes()
    assert builder.built_from(first, "kafka") == "digest"
    with tarfile.open(first) as tar:
        assert {member.name: member.mode for member in tar} == {
            "kafka/INPUTS.sha256": 0o644,
            "kafka/bin": 0o755,
            "kafka/bin/x.sh": 0o755,
            "kafka/libs": 0o755,
            "kafka/libs/x.jar": 0o644,
        }


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_what_is_no_archive_was_built_from_nothing(
    builder: ModuleType, tmp_path: Path, content: bytes | None
) -> None:
    archive = tmp_path / "x.tgz"
    if content is not None:
        archive.write_bytes(content)

    assert builder.built_from(archive, "kafka") is None


def test_a_missing_maven_is_one_sentence(
    builder: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert builder.main(["--output", str(tmp_path / "x.tgz")]) == 1
    assert "mvn is not installed; install Debian's package 'maven'" in capsys.readouterr().err
