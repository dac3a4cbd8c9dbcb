"""^C and SIGTERM while letters are replayed, by real processes: what is in hand is finished, the rest can follow."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scheduler import processes

#: So many that a replay at the rates below takes most of a minute, or minutes.
LETTERS = 600
COMMAND = str(Path(sys.executable).with_name("scheduler"))


def _start(letters: Any, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, "dlq", *args], env={**os.environ, **letters.environ}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=processes.dies_with_parent(),
    )  # fmt: skip


def _until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _replayed(letters: Any) -> Counter[str]:
    return Counter(
        dict(record.headers)["dlq-letter"].decode() for record in letters.read(letters.topic)
    )


@pytest.mark.parametrize(
    ("how", "code", "force"), [(signal.SIGINT, 130, ()), (signal.SIGTERM, 143, ("--force",))]
)
def test_an_interrupted_replay_says_how_to_go_on(
    letters: Any, how: signal.Signals, code: int, force: tuple[str, ...]
) -> None:
    """By force too, where the same command would replay all of them once more."""
    letters.write(LETTERS, task="shop charge")
    args = ("replay", "--task", "shop charge", "--rate", "12", "--yes", *force)
    process = _start(letters, *args)
    _until(lambda: len(_replayed(letters)) >= 6, process)
    process.send_signal(how)
    out, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    done = _replayed(letters)
    assert 6 <= len(done) < LETTERS
    assert out == f"{len(done)} letters replayed.\n"
    sentence, command = said.strip().split(" to go on: ")
    assert sentence == f"scheduler: Interrupted after {len(done)} of {LETTERS} letters;"
    assert "\n" not in command, "it is pasted"
    words = shlex.split(command)
    assert words[0] == "scheduler"
    subprocess.run(
        [COMMAND, *words[1:], "--rate", "1000"], env={**os.environ, **letters.environ},
        check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    each_once = Counter(f"0-{number}" for number in range(LETTERS))
    assert _replayed(letters) == each_once
    assert Counter(act["letter"] for act in letters.json("history")) == each_once


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_watch_told_to_stop_ends_well(letters: Any, how: signal.Signals) -> None:
    """In the middle of a round that would take five minutes."""
    letters.write(LETTERS, kind="passing")
    process = _start(letters, "watch", "--first", "0", "--every", "0.2", "--rate", "2")
    _until(lambda: len(_replayed(letters)) >= 2, process)
    process.send_signal(how)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    done = _replayed(letters)
    assert len(done) < LETTERS
    assert set(done.values()) == {1}
    assert out == f"{len(done)} letters replayed.\n"
    assert {act["letter"] for act in letters.json("history")} == set(done)
