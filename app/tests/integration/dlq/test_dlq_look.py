"""Looking at letters on a real broker: listed, shown, counted, moved out and back."""

from __future__ import annotations

import base64
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scheduler.dlq.statistics import Statistics
from tests.eventually import eventually

MANY = 10_000
#: Something that takes the processor a while, however fast that is now, and whatever others take from it.
MEASURE = "import json\nfor _ in range(200_000): json.loads(json.dumps({'id': [1, 'two', None]}))"
#: How often as long listing them may take the processor; two to three times were measured.
MOST = 8


def _processor(*command: str, **settings: Any) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run a command; return the seconds of a processor that it took, too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done


def test_ten_thousand_letters_are_listed(letters: Any, record_property: Any) -> None:
    """Each with a body and a traceback, as the command line is called.

    Held to processor time: how long that takes is for the machine's other work to say too.
    """
    letters.write(MANY, traceback="Traceback (most recent call last):\n" + "  File x\n" * 200)
    command = [str(Path(sys.executable).with_name("scheduler")), "dlq", "list"]
    measure = [_processor(sys.executable, "-c", MEASURE)[0]]
    started = time.monotonic()
    busy, done = _processor(*command, env={**os.environ, **letters.environ})
    seconds = time.monotonic() - started
    measure += [_processor(sys.executable, "-c", MEASURE)[0]]
    record_property("seconds", seconds)
    print(f"{MANY} letters listed in {seconds:.2f} s, {busy:.2f} s of a processor, by {measure}")
    assert busy < MOST * max(measure)
    assert done.returncode == 0, done.stderr
    assert "1 to 50 of 10,000 letters; more with --offset 50." in done.stderr
    assert len(done.stdout.splitlines()) == 51
    lines = letters.json("list", "--sort", "id", "--reverse")
    assert [line["id"] for line in lines] == [f"0-{number}" for number in range(MANY)]


def test_filters_sorting_and_pages(letters: Any) -> None:
    now = time.time()
    letters.write(2, task="shop.charge", failed_at=now - 7200, key=b"order-1")
    letters.write(1, task="shop.mail", exception="TimeoutError", kind="passing", failed_at=now - 60)
    letters.write(1, task="shop.mail", reason="time-limit", exception="", partition=3)

    def ids(*args: str) -> list[str]:
        return [line["id"] for line in letters.json("list", "--sort", "id", "--reverse", *args)]

    assert ids() == ["0-0", "0-1", "0-2", "0-3"]
    assert ids("--task", "shop.m*") == ["0-2", "0-3"]
    assert ids("--exception", "ValueError") == ["0-0", "0-1"]
    assert ids("--reason", "time-limit") == ["0-3"]
    assert ids("--kind", "passing") == ["0-2"]
    assert ids("--since", "1h") == ["0-2", "0-3"]
    assert ids("--until", "1h") == ["0-0", "0-1"]
    assert ids("--partition", "3") == ["0-3"]
    assert ids("--key", "order-1", "--limit", "1", "--offset", "1") == ["0-1"]
    assert ids("0-3", "0-1") == ["0-1", "0-3"]
    assert letters.json("list", "--limit", "1")[0]["id"] == "0-3", "the newest first"
    nothing = letters.run("list", "--task", "nobody", code=1)
    assert "is meant by that; it holds 4 new." in nothing.stderr
    letters.run("list", "--since", "yesterday-ish", code=2)
    letters.run("list", "3/7", code=2)
    assert "that failed since" in letters.run("list", "--since", "2099-01-01", code=1).stderr
    letters.environ["CELERY_DEAD_LETTER_TOPIC"] = "no-such-topic"
    assert "There is no topic no-such-topic" in letters.run("list", code=1).stderr


def test_nothing_a_letter_says_acts_on_the_terminal(letters: Any) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J[bold]x[/]\u202e\r\n"
    letters.write(1, task=evil, exception=evil, message=evil, traceback=evil, key=evil.encode(),
                  worker=evil, value=json.dumps([[evil], {}, {}]).encode())  # fmt: skip
    for args in (("list",), ("show", "0-0"), ("stats",)):
        shown = letters.run(*args).stdout
        assert not set(shown) & set("\x1b\x07\u202e\r"), args
        assert "\\x1b" in shown
    assert letters.json("list")[0]["task"] == evil
    assert "\x1b" not in letters.run("list", "--json").stdout


def test_show(letters: Any) -> None:
    body = [["42"], {"card": {"password": "hunter2", "n": 1}}, {}]
    headers = [("task", b"shop.charge"), ("id", b"id-1"), ("kwargsrepr", b"{'password': 'hunter2'}"),
               ("content-type", b"application/json"), ("none", None)]  # fmt: skip
    letters.write(1, value=json.dumps(body).encode(), headers=headers, kind="hard", attempts="3",
                  message="https://u:hunter2@x refused", traceback="raise X(token='hunter2')")  # fmt: skip
    shown = letters.run("show", "0-0").stdout
    assert "hunter2" not in shown
    assert shown.count("[redacted]") == 4
    for text in ("shop.charge", "exception (hard)", "attempts", "Traceback", "application/json"):
        assert text in shown
    assert "hunter2" in letters.run("show", "0-0", "--reveal").stdout
    data = json.loads(letters.run("show", "0-0", "--json").stdout)
    assert data["headers"][-1] == ["none", None]
    assert json.loads(data["body"])[1] == {"card": {"password": "[redacted]", "n": 1}}
    letters.write(1, value=bytes(range(256)), headers=[])
    assert "binary" in letters.run("show", "0-1").stdout
    letters.write(1, value=None, headers=[("content-type", b"application/x-python-serialize")])
    assert "not JSON" not in letters.run("show", "0-2").stdout
    assert "There is no letter 0-99" in letters.run("show", "0-99", code=1).stderr


def test_stats(letters: Any) -> None:
    letters.write(3, failed_at=time.time() - 7200)
    letters.write(1, task="shop.mail", exception="TimeoutError")
    letters.run("skip", "0-0", "--why", "known")
    data = letters.json("stats")[0]
    assert (data["new"], data["total"]) == (3, 4)
    assert data["groups"][0]["new"] == 2
    assert data["hours"][-3:] == [3, 0, 1]
    assert "Failed in each of the last 24 hours" in letters.run("stats").stdout


@pytest.mark.parametrize(
    "value", ["käse ☃".encode(), bytes(range(256)) * 4, os.urandom(1 << 20), b""]
)
def test_export_and_import_keep_every_byte(letters: Any, tmp_path: Path, value: bytes) -> None:
    headers = [("task", b"t"), ("twice", b"\xff"), ("twice", b""), ("dlq-reason", b"forged")]
    letters.write(1, value=value, key=b"\x00k", headers=headers)
    letters.write(1, value=b"x")
    (original, _) = letters.read(letters.dead_letter_topic)
    file = tmp_path / "letters"
    file.touch(mode=0o644)
    letters.run("export", "0-0", "-o", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert base64.b64decode(json.loads(file.read_text())["value"]) == value
    assert "it is there already" in letters.run("import", str(file), code=3).stderr
    letters.run("import", str(file), "--force", "--by", "anna")
    copy = letters.read(letters.dead_letter_topic)[-1]
    assert (copy.key, copy.value, copy.headers) == (original.key, original.value, original.headers)
    (act,) = letters.json("history", "--act", "imported")
    assert act["by"] == "anna"
    assert act["letter"] == f"0-{copy.offset}"
    assert letters.json("list", act["letter"])[0]["reason"] == "exception", "ours, not the forged"
    # A letter dealt with since it was exported does not come back.
    letters.run("skip", "0-0", "--why", "x")
    file.write_text("{}\n")
    assert "Line 1 is no exported letter" in letters.run("import", str(file), code=65).stderr
    for place, why in ((tmp_path / "no" / "file", "No such file"), ("/dev/full", "No space left")):
        said = letters.run("export", "-o", str(place), code=1).stderr
        assert said.startswith(f"scheduler: {place} can't be written, or not whole: {why}")


def test_the_exporters_numbers(letters: Any) -> None:
    letters.write(2, failed_at=1.7e9)
    statistics = Statistics(letters.options)
    try:
        first = statistics.snapshot()
        assert (first.summary.new, first.summary.oldest) == (2, 1.7e9)
        letters.run("replay", "0-0")
        letters.run("skip", "0-1", "--why", "x")
        letters.write(1, task="shop.mail")
        second = statistics.snapshot()
    finally:
        statistics.close()
    assert (second.summary.new, second.summary.total) == (1, 3)
    assert second.arrivals == {
        ("shop.charge", "ValueError", "exception"): 0,  # two lay there before it began
        ("shop.mail", "ValueError", "exception"): 1,
    }
    assert (second.replays, second.skips) == ({"shop.charge": 1}, {"shop.charge": 1})


def test_a_topic_made_anew_has_no_history(letters: Any) -> None:
    letters.write(1)
    letters.run("skip", "0-0", "--why", "x")
    admin = letters.kafka.admin()
    admin.delete_topics([letters.dead_letter_topic])
    admin.close()
    eventually(lambda: letters.dead_letter_topic not in letters.kafka_topics(), 30)
    assert "There is no topic" in letters.run("list", code=1).stderr
    letters.kafka.create_topic(letters.dead_letter_topic, 1)
    letters.write(1)
    assert letters.json("list")[0]["state"] == "new"
    letters.run("replay", "0-0")


def test_a_history_that_would_forget_is_refused(letters: Any) -> None:
    letters.kafka.create_topic(letters.history_topic, 1)
    letters.write(1)
    assert "cleanup.policy=delete" in letters.run("replay", "0-0", code=78).stderr
    assert letters.read(letters.topic) == []


@pytest.mark.parametrize("command", [("list",), ("show", "0-0"), ("stats",), ("history",),
                                     ("replay", "0-0"), ("skip", "0-0", "--why", "x"), ("export",)])  # fmt: skip
def test_brokers_out_of_reach_are_one_sentence(letters: Any, command: tuple[str, ...]) -> None:
    letters.environ |= {
        "CELERY_BROKER_URL": "kafka://127.0.0.1:1//t",
        "CELERY_CONNECT_TIMEOUT": "0.2",
    }
    result = letters.run(*command, code=69)
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("scheduler: ")
