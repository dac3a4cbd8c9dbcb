#!/usr/bin/env python3
"""Builds the Kafka archive, laid out as Apache's: ``bin/ libs/ config/`` in ``kafka_2.13-4.3.0/``.

The jars come from Maven Central through ``mvn`` and the pinned ``pom.xml`` beside this file; each
is checked against ``checksums.sha256``. ``bin/`` and ``config/`` are our own. The same input gives
the same bytes. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
CHECKSUMS = HERE / "checksums.sha256"
#: First member of the archive: what it was made from, so that a second build sees there is nothing
#: to do.
INPUTS_NAME = "INPUTS.sha256"
#: Every file's time in the archive, 2020-01-01: now would make each build differ.
MTIME = 1577836800


class BuildError(Exception):
    """The archive cannot be built; the message is one sentence for the person who wants it."""


def archive_name(pom: str) -> str:
    """The archive's top directory, from the pom's versions.

    >>> archive_name((HERE / "pom.xml").read_text())
    'kafka_2.13-4.3.0'
    """
    scala, kafka = (
        re.search(f"<{name}>([^<]+)</{name}>", pom)
        for name in ("scala.binary.version", "kafka.version")
    )
    if not scala or not kafka:
        raise BuildError(f"{POM} lacks scala.binary.version or kafka.version in its properties.")
    return f"kafka_{scala[1]}-{kafka[1]}"


def parse_checksums(text: str) -> dict[str, str]:
    """``{jar: sha256}`` from lines as ``sha256sum`` writes them."""
    checksums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or name in checksums:
            raise BuildError(
                f"{CHECKSUMS.name}, line {number}, is not 'sha256  jar' or repeats a jar: {line!r}."
            )
        checksums[name] = digest
    return checksums


def compare(expected: Mapping[str, str], actual: Mapping[str, str]) -> None:
    """Raises `BuildError` naming the jars that differ from the committed list."""
    faults = [
        *(
            f"{name} has sha256 {actual[name]}, not {expected[name]}"
            for name in sorted(expected.keys() & actual.keys())
            if expected[name] != actual[name]
        ),
        *(f"{name} is missing" for name in sorted(expected.keys() - actual.keys())),
        *(f"{name} is not in the list" for name in sorted(actual.keys() - expected.keys())),
    ]
    if faults:
        raise BuildError(
            f"the jars from Maven are not those of {CHECKSUMS.name}: {'; '.join(faults)}. "
            "Delete them from the local Maven repository and try again; if you changed pom.xml, "
            "review the new jars and run build_archive.py --update-checksums."
        )


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inputs_digest() -> str:
    """One digest over all that the archive's bytes depend on."""
    files = [
        Path(__file__).resolve(),
        POM,
        CHECKSUMS,
        *sorted(HERE.glob("bin/*")),
        *sorted(HERE.glob("config/*")),
    ]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(HERE)} {sha256_file(file)}\n".encode())
    return digest.hexdigest()


def built_from(archive: Path, name: str) -> str | None:
    """The inputs' digest in an archive; None if that is absent, damaged or something else."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            member = tar.next()
            if member is None or member.name != f"{name}/{INPUTS_NAME}":
                return None
            file = tar.extractfile(member)
            return file.read().decode().strip() if file else None
    except (OSError, tarfile.TarError, EOFError, UnicodeDecodeError):
        return None


def fetch_jars(directory: Path) -> None:
    """Lets Maven copy the pom's runtime dependencies into a directory."""
    mvn = shutil.which("mvn")
    if mvn is None:
        raise BuildError(
            "mvn is not installed; install Debian's package 'maven', or give the role kafka "
            "another kafka_archive_source ('url' or 'file')."
        )
    command = [
        mvn, "--batch-mode", "--quiet", "--file", str(POM), "dependency:copy-dependencies",
        "-DincludeScope=runtime", f"-DoutputDirectory={directory}", "-Dstyle.color=never",
    ]  # fmt: skip
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        lines = [line for line in result.stdout.splitlines() if line.startswith("[ERROR]")]
        raise BuildError(
            "Maven could not fetch the jars:\n"
            + "\n".join((lines or result.stdout.splitlines())[:8])
        )


def add(
    tar: tarfile.TarFile, name: str, content: IO[bytes], size: int, *, executable: bool = False
) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mtime = MTIME
    entry.mode = 0o755 if executable else 0o644
    tar.addfile(entry, content)


def add_directory(tar: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    entry.mtime = MTIME
    entry.mode = 0o755
    tar.addfile(entry)


def write_archive(
    output: Path, name: str, inputs: str, folders: Mapping[str, Iterable[Path]]
) -> None:
    """Writes the archive beside its final name and moves it there when it is whole."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        with (
            partial.open("wb") as raw,
            gzip.GzipFile(
                filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=MTIME
            ) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            note = f"{inputs}\n".encode()
            add(tar, f"{name}/{INPUTS_NAME}", io.BytesIO(note), len(note))
            for folder, files in folders.items():
                add_directory(tar, f"{name}/{folder}")
                for file in sorted(files):
                    with file.open("rb") as content:
                        add(tar, f"{name}/{folder}/{file.name}", content, file.stat().st_size,
                            executable=folder == "bin")  # fmt: skip
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def build(output: Path, *, update_checksums: bool) -> bool:
    """Builds the archive if it isn't up to date. Returns whether it wrote one."""
    name = archive_name(POM.read_text())
    if not update_checksums and built_from(output, name) == inputs_digest():
        print(f"{output} is up to date.")
        return False
    with tempfile.TemporaryDirectory(prefix="kafka-archive-") as temporary:
        libs = Path(temporary)
        print(f"Fetching the jars of {name} through Maven...", flush=True)
        fetch_jars(libs)
        actual = {jar.name: sha256_file(jar) for jar in libs.iterdir()}
        if update_checksums:
            CHECKSUMS.write_text("".join(f"{actual[jar]}  {jar}\n" for jar in sorted(actual)))
            print(f"Wrote {CHECKSUMS.name}: review it before you commit it.")
        compare(parse_checksums(CHECKSUMS.read_text()), actual)
        folders = {
            "bin": HERE.glob("bin/*.sh"),
            "config": HERE.glob("config/*"),
            "libs": libs.glob("*.jar"),
        }
        write_archive(output, name, inputs_digest(), folders)
    print(f"Built {output}: {len(actual)} jars, sha256 {sha256_file(output)}.")
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the Kafka archive from Maven Central.")
    parser.add_argument("--output", type=Path, required=True, help="the .tgz to write")
    parser.add_argument(
        "--update-checksums",
        action="store_true",
        help="rewrite checksums.sha256 after a change of pom.xml",
    )
    options = parser.parse_args(arguments)
    try:
        build(options.output, update_checksums=options.update_checksums)
    except BuildError as error:
        print(f"build_archive.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"build_archive.py: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
