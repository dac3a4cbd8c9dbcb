"""Build a release on the controller: every wheel that a worker host installs, in one tar.

In the tar are the wheels and a requirements.txt that pins each to the sha256 of the file beside it,
so that a host installs exactly these, with no index and no network. The release is named by the tar's
content. What it was made of (the app's tree, its lock, the team's package, the Python it is for)
names the folder it is kept in, and while that is the same nothing is built again.

Run by the role celery_app; by hand:

    python3 build_wheelhouse.py --app app --lock app/requirements.lock --output .cache/wheelhouse
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.markers import Marker

#: Changes whenever the same input makes another release than before.
RECIPE = "2"
#: Not part of a package: what version control, tools and tests leave in its tree.
LITTER = ("__pycache__", "*.pyc", "*.egg-info", ".*", "build", "dist", "venv", "node_modules")
#: The oldest to the newest manylinux that Debian 12's glibc (2.36) runs.
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 37)))
#: Releases kept in the output folder, the newest first.
KEEP = 3
#: 1980-01-01, the oldest date that a zip (and so a wheel) can hold.
EPOCH = 315532800


class WheelhouseError(Exception):
    """The release cannot be built; the message is one sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """Build, or find built, and print one JSON object that says where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--app", type=Path, required=True, help="the app's source tree")
    parser.add_argument("--lock", type=Path, required=True, help="its lock file, with hashes")
    parser.add_argument("--package", default="", help="the team's package: a path or a requirement")
    parser.add_argument("--root", type=Path, default=Path(), help="what a relative path starts at")
    parser.add_argument("--python", default="3.11", help="the hosts' Python (default: 3.11)")
    parser.add_argument("--output", type=Path, required=True, help="where releases are kept")
    args = parser.parse_args(argv)
    try:
        archive, built = build(
            args.app, args.lock, args.package, args.root, args.python, args.output
        )
    except WheelhouseError as error:
        print(f"wheelhouse: {error}", file=sys.stderr)
        return 1
    release = hashlib.sha256(archive.read_bytes()).hexdigest()[:16]
    print(json.dumps({"release": release, "archive": str(archive.resolve()), "built": built}))
    return 0


def build(
    app: Path, lock: Path, package: str, root: Path, python: str, output: Path
) -> tuple[Path, bool]:
    """Build the release unless it is there.

    Returns:
        The release's tar, and whether it had to be built.
    """
    if not lock.is_file():
        raise WheelhouseError(f"There is no lock file {lock}: make it with 'make lock'.")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=output) as scratch:
        work = Path(scratch)
        source = _copy(app, work / "app", ("tests",))
        team = _team(package, root, work / "team")
        archive = output / _name(source, lock, team, python) / "wheelhouse.tar"
        if archive.is_file():
            archive.parent.touch()
            return archive, False
        wheels = work / "wheels"
        own = _wheel(source, wheels, isolated=False)
        _download_locked(lock, wheels, python)
        if team:
            _add_team(team, own, lock, wheels, python)
        (work / "release").mkdir()
        _pack(wheels, work / "release" / "wheelhouse.tar")
        try:
            (work / "release").replace(archive.parent)
        except OSError:
            if not archive.is_file():  # another build was not faster
                raise
    _prune(output)
    return archive, True


def _team(package: str, root: Path, copy: Path) -> Path | str:
    """Tell a path from a requirement; a directory is copied, so that building litters nothing."""
    if not package:
        return ""
    path = root / Path(package).expanduser()
    if path.is_dir():
        return _copy(path, copy)
    if path.is_file():
        if path.suffix != ".whl":
            raise WheelhouseError(
                f"celery_app_package is {package}, a file that is no wheel: name a wheel, the "
                "package's folder, or a requirement such as acme-tasks==1.4.0."
            )
        return path
    if not re.search(r"[^=!<>~]==[^=*]+$| @ ", package):
        raise WheelhouseError(
            f"celery_app_package is {package!r}, neither a path under {root.resolve()} nor a "
            "requirement with its exact version: write it like acme-tasks==1.4.0."
        )
    return package


def _copy(tree: Path, to: Path, also: tuple[str, ...] = ()) -> Path:
    if not any((tree / name).is_file() for name in ("pyproject.toml", "setup.py")):
        raise WheelhouseError(f"{tree} is no Python package: it has no pyproject.toml.")

    def ignore(folder: str, names: list[str]) -> set[str]:
        found = shutil.ignore_patterns(*LITTER)(folder, names)
        return found | (set(also) & set(names) if Path(folder) == tree else set())

    return Path(shutil.copytree(tree, to, ignore=ignore))


def _name(source: Path, lock: Path, team: Path | str, python: str) -> str:
    digest = hashlib.sha256()

    def add(*parts: bytes) -> None:
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)

    add(RECIPE.encode(), python.encode(), *_content(source), *_content(lock))
    if isinstance(team, Path):
        add(*_content(team))
    elif team:
        add(team.encode())
    return digest.hexdigest()[:16]


def _content(path: Path) -> Iterator[bytes]:
    if path.is_file():
        yield from (path.name.encode(), path.read_bytes())
        return
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        yield from (file.relative_to(path).as_posix().encode(), file.read_bytes())


def _wheel(source: Path, wheels: Path, *, isolated: bool) -> Path:
    """Build a wheel; ours by the locked build backend of the tools, a team's by its own."""
    wheels.mkdir(exist_ok=True)
    before = set(wheels.iterdir())
    isolation = [] if isolated else ["--no-build-isolation"]
    _pip("wheel", "--no-deps", *isolation, "--wheel-dir", wheels, source)
    (wheel,) = set(wheels.iterdir()) - before
    return wheel


def _download_locked(lock: Path, wheels: Path, python: str) -> None:
    wanted = wheels.parent / "wanted.txt"
    wanted.write_text(_for_hosts(lock.read_text(), python))
    _pip(
        "download", "--require-hashes", "--no-deps", *_target(python),
        "--dest", wheels, "--requirement", wanted,
    )  # fmt: skip


def _for_hosts(lock: str, python: str) -> str:
    """Return the lock without markers: pip would judge them by the Python that runs here.

    What only some patch releases of the hosts' Python need goes along for all.
    """
    hosts = [
        {"python_version": python, "python_full_version": f"{python}.{patch}",
         "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix",
         "platform_machine": "x86_64", "implementation_name": "cpython",
         "platform_python_implementation": "CPython"}
        for patch in (0, 99)
    ]  # fmt: skip
    kept, keeping = [], True
    for line in lock.splitlines():
        if re.match(r"[A-Za-z0-9]", line):
            requirement, _, marker = line.removesuffix("\\").partition(" ; ")
            keeping = not marker or any(Marker(marker).evaluate(host) for host in hosts)
            line = f"{requirement.rstrip()} \\"
        if keeping:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _add_team(team: Path | str, own: Path, lock: Path, wheels: Path, python: str) -> None:
    """Add the team's package and what it needs, at our versions of what both need."""
    if isinstance(team, Path):
        team = str(_wheel(team, wheels, isolated=True) if team.is_dir() else team)
    pins = [line.split(" \\")[0] for line in lock.read_text().splitlines() if "==" in line]
    constraints = wheels.parent / "constraints.txt"
    # Our own wheel by its path: an index might have something else by that name.
    name = own.name.partition("-")[0].replace("_", "-")
    constraints.write_text("\n".join([*pins, f"{name} @ {own.resolve().as_uri()}"]) + "\n")
    _pip(
        "download", *_target(python), "--find-links", wheels,
        "--dest", wheels, "--constraint", constraints, team,
    )  # fmt: skip


def _target(python: str) -> list[str]:
    abi = f"cp{python.replace('.', '')}"
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    tags = ["--python-version", python, "--implementation", "cp"]
    return [
        "--only-binary=:all:",
        *platforms,
        *tags,
        "--abi",
        abi,
        "--abi",
        "abi3",
        "--abi",
        "none",
    ]


def _pip(*args: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", *args]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(EPOCH)}
    done = subprocess.run(
        [str(word) for word in command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-15:]), file=sys.stderr)
        raise WheelhouseError(f"'pip {args[0]}' failed; its last words are above.")


def _pack(wheels: Path, archive: Path) -> None:
    """Write the tar, the same bytes for the same wheels."""
    files = sorted(wheels.glob("*.whl"))
    names = [_distribution(file) for file in files]
    if twice := {name for name, _ in names if [n for n, _ in names].count(name) > 1}:
        raise WheelhouseError(
            f"Two versions of {', '.join(sorted(twice))} are needed, by the app and by "
            "celery_app_package: let the package allow the version in app/requirements.lock."
        )
    pins = [
        f"{name}=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"
        for file, (name, version) in zip(files, names, strict=True)
    ]
    with tarfile.open(archive, "w") as tar:
        _add(tar, "requirements.txt", "".join(pins).encode())
        for file in files:
            _add(tar, file.name, file.read_bytes())


def _distribution(wheel: Path) -> tuple[str, str]:
    name, version = wheel.name.split("-")[:2]
    return re.sub(r"[-_.]+", "-", name).lower(), version


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(content), EPOCH, 0o644
    tar.addfile(member, io.BytesIO(content))


def _prune(output: Path) -> None:
    releases = [path.parent for path in output.glob("*/wheelhouse.tar")]
    for old in sorted(releases, key=lambda path: path.stat().st_mtime, reverse=True)[KEEP:]:
        shutil.rmtree(old)


if __name__ == "__main__":
    sys.exit(main())
