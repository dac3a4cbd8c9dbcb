"""The release: named by its content, built without leaving a trace in the sources."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Build = Callable[..., tuple[Path, bool]]

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "1.0"
"""


@pytest.fixture(scope="session")
def wheelhouse(from_role: Callable[[str], ModuleType]) -> ModuleType:
    return from_role("celery_app/files/build_wheelhouse.py")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    tree = tmp_path / "app"
    (tree / "kombu_kafka").mkdir(parents=True)
    (tree / "pyproject.toml").write_text(PYPROJECT.format(name="kombu-kafka"))
    (tree / "kombu_kafka" / "__init__.py").write_text("")
    (tree / "requirements.lock").write_text("")
    return tree


@pytest.fixture
def build(
    wheelhouse: ModuleType, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Build:
    # What comes from an index is Molecule's to test; here nothing leaves the machine.
    monkeypatch.setattr(wheelhouse, "_download_locked", lambda *_: None)

    def call(package: str = "", python: str = "3.11") -> tuple[Path, bool]:
        result: tuple[Path, bool] = wheelhouse.build(
            app, app / "requirements.lock", package, tmp_path, python, tmp_path / "out"
        )
        return result

    return call


def test_the_same_input_is_built_once(build: Build, app: Path) -> None:
    archive, built = build()
    (app / "kombu_kafka" / "__pycache__").mkdir()
    (app / "tests").mkdir()
    (app / "tests" / "test_it.py").write_text("")

    assert built
    assert build() == (archive, False)


def test_each_input_makes_a_release_of_its_own(build: Build, app: Path) -> None:
    archives = {build()[0], build(python="3.12")[0]}
    (app / "kombu_kafka" / "__init__.py").write_text("changed = True\n")
    archives.add(build()[0])
    (app / "requirements.lock").write_text("# changed\n")
    archives.add(build()[0])

    assert len(archives) == 4


def test_the_same_wheels_are_the_same_bytes(build: Build, app: Path, tmp_path: Path) -> None:
    archive, _ = build()
    before = archive.read_bytes()
    archive.unlink()
    archive.parent.rmdir()

    assert build() == (archive, True)
    assert archive.read_bytes() == before
    with tarfile.open(archive) as tar:
        pins, wheel = tar.getmembers()
        content = tar.extractfile(wheel)
        listed = tar.extractfile(pins)
        assert content is not None
        assert listed is not None
        digest = hashlib.sha256(content.read()).hexdigest()
        assert listed.read().decode() == f"kombu-kafka==1.0 --hash=sha256:{digest}\n"
    assert sorted(path.name for path in app.iterdir()) == [
        "kombu_kafka",
        "pyproject.toml",
        "requirements.lock",
    ]


def test_only_the_last_few_releases_are_kept(build: Build, app: Path, tmp_path: Path) -> None:
    for number in range(5):
        (app / "kombu_kafka" / "__init__.py").write_text(f"number = {number}\n")
        last, _ = build()

    kept = [path.name for path in (tmp_path / "out").iterdir()]
    assert len(kept) == 3
    assert last.parent.name in kept


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("acme-tasks", "requirement with its exact version"),
        ("acme-tasks>=1.4", "requirement with its exact version"),
        ("acme-tasks==1.*", "requirement with its exact version"),
        ("no/such/folder", "neither a path under"),
        ("empty", "is no Python package"),
        ("app/pyproject.toml", "a file that is no wheel"),
    ],
)
def test_a_package_that_cannot_be_is_refused_in_one_sentence(
    build: Build, tmp_path: Path, wheelhouse: ModuleType, package: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(wheelhouse.WheelhouseError, match=said) as refused:
        build(package)

    assert "\n" not in str(refused.value)


def test_a_missing_lock_is_refused(
    wheelhouse: ModuleType, app: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = wheelhouse.main(
        ["--app", str(app), "--lock", str(tmp_path / "none"), "--output", str(tmp_path / "out")]
    )

    assert status == 1
    assert "There is no lock file" in capsys.readouterr().err


def test_what_some_patch_releases_of_the_hosts_python_need_goes_along(
    wheelhouse: ModuleType,
) -> None:
    lock = (
        "old==1.0 ; python_full_version < '3.11.3' \\\n    --hash=sha256:aa\n"
        "windows==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:bb\n    # via other\n"
        "plain==1.0 \\\n    --hash=sha256:cc\n"
    )
    assert wheelhouse._for_hosts(lock, "3.11") == (
        "old==1.0 \\\n    --hash=sha256:aa\nplain==1.0 \\\n    --hash=sha256:cc\n"
    )
