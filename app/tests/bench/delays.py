"""How late delayed messages are: `python -m tests.bench.delays [--count N] [--kills N] …`.

A broker of its own, two dispatchers as processes, a publisher, and a reader of committed records who
notes when each message is there to be read. The messages are due in a second to a month; those that
are due within `--seconds` are waited for. With `--kills` the dispatcher at work is killed so often,
and another one started, while they arrive. `--burst` messages are due in one instant at the end.

Prints one JSON object; times are in milliseconds, lateness is counted from due to readable.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from kafka import KafkaConsumer

from kombu_kafka.delay import messages as delay
from kombu_kafka.delay import topics as delay_topics
from kombu_kafka.options import Options
from kombu_kafka.publishing import producer
from scheduler import processes
from scheduler.local_broker import LocalKafka

TOPIC = "tasks"
MONTH = 30 * 86_400.0
HEADERS = [
    ("task", b"orders.advance"), ("lang", b"py"), ("argsrepr", b"('42',)"), ("kwargsrepr", b"{}"),
    ("origin", b"gen1@host"), ("root_id", b"6" * 36), ("retries", b"0"), ("eta", b"2" * 32),
    ("content-type", b"application/json"), ("content-encoding", b"utf-8"),
]  # fmt: skip
BODY = b'[["42"], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


def read(bootstrap: Sequence[str], to: Connection) -> None:
    """Send what arrives, as lists of (number, due, when it could be read); for a process."""
    client = KafkaConsumer(
        TOPIC, bootstrap_servers=list(bootstrap), group_id=None, enable_auto_commit=False,
        auto_offset_reset="earliest", isolation_level="read_committed", max_poll_records=5000,
        fetch_max_wait_ms=50,
    )  # fmt: skip
    client.poll(timeout_ms=1000)
    to.send([])
    while True:
        found = client.poll(timeout_ms=200)
        now = int(time.time() * 1000)
        headers = [dict(record.headers) for records in found.values() for record in records]
        if headers:
            to.send([(int(each["id"]), int(each["due"]), now) for each in headers])


class Seen:
    """What the reader has sent."""

    def __init__(self, source: Connection) -> None:
        self.counts: Counter[int] = Counter()
        self.late: dict[int, int] = {}
        self._source = source

    def look(self, seconds: float) -> None:
        while self._source.poll(seconds):
            for number, due, at in self._source.recv():
                self.counts[number] += 1
                self.late.setdefault(number, at - due)
            seconds = 0


class Dispatchers:
    """Two of them; the one at work can be killed."""

    def __init__(self, url: str) -> None:
        self._command = [sys.executable, "-m", "tests.dispatching", url, "{}", "6000"]
        self._running: list[subprocess.Popen[bytes]] = []
        for _ in range(2):
            self._start()
            time.sleep(2)
        if out := self._running[0].stdout:
            out.readline()

    def _start(self) -> None:
        self._running.append(
            subprocess.Popen(
                self._command, stdout=subprocess.PIPE, preexec_fn=processes.dies_with_parent()
            )
        )

    def kill(self) -> None:
        """Kill the first, which is at work, and start another."""
        victim = self._running.pop(0)
        victim.kill()
        victim.wait()
        self._start()

    def usage(self) -> tuple[float, int]:
        """CPU seconds and memory, in kB, of the first."""
        pid = self._running[0].pid
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        with open(f"/proc/{pid}/status") as file:
            resident = next(line for line in file if line.startswith("VmRSS")).split()[1]
        ticks = os.sysconf("SC_CLK_TCK")
        return (int(fields[11]) + int(fields[12])) / ticks, int(resident)

    def stop(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


def publish(options: Options, number: int, due: int) -> None:
    own = [("id", str(number).encode()), ("due", str(due).encode())]
    key = b"k%d" % (number % 1000)
    delay.publish(options, TOPIC, BODY, due=due, key=key, headers=HEADERS + own, confirm=False)


def quantiles(late: Sequence[int]) -> dict[str, int]:
    ordered = sorted(late) or [0]
    found = {f"p{q:g}": ordered[int(len(ordered) * q / 100)] for q in (50, 90, 99, 99.9)}
    return {**found, "max": ordered[-1]}


def delays(seconds: float, count: int, near: float) -> list[float]:
    """`near` of them due evenly within `seconds`, the rest by powers of ten up to a month."""
    drawn = random.Random(1)  # the same ones in each run
    short = [drawn.uniform(1, seconds) for _ in range(int(count * near))]
    upto = math.log10(MONTH)
    long = [10 ** drawn.uniform(0, upto) for _ in range(count - len(short))]
    drawn.shuffle(short := short + long)
    return short


def measure(arguments: argparse.Namespace, kafka: LocalKafka) -> dict[str, Any]:
    options = Options.of(kafka.url(), {})
    delay_topics.ensure(options)
    source, to = (context := get_context("spawn")).Pipe(duplex=False)
    reader = context.Process(target=read, args=(kafka.bootstrap, to), daemon=True)
    reader.start()
    source.recv()
    seen, dispatchers = Seen(source), Dispatchers(kafka.url())
    try:
        cpu, _ = dispatchers.usage()
        began = time.time()
        due = {}
        for number, wait in enumerate(delays(arguments.seconds, arguments.count, arguments.near)):
            due[number] = int((time.time() + wait) * 1000)
            publish(options, number, due[number])
        producer.close_all(60)
        published = time.time() - began
        end = began + arguments.seconds + published + 1
        kills = [began + published + 5 + n * (end - began - published - 10) / arguments.kills
                 for n in range(arguments.kills)]  # fmt: skip
        while time.time() < end:
            seen.look(0.5)
            if kills and time.time() > kills[0]:
                dispatchers.kill()
                del kills[0]
        used, memory = dispatchers.usage()
        upto = int(time.time() * 1000) - 2000
        expected = {number for number, at in due.items() if at <= upto}
        deadline = time.time() + 60
        while time.time() < deadline and not seen.late.keys() >= expected:
            seen.look(0.5)
        late = [at for number, at in seen.late.items()]
        result: dict[str, Any] = {
            "published": len(due), "publish_rate": round(len(due) / published),
            "due": len(expected), "lost": len(expected - seen.late.keys()),
            "doubled": sum(n > 1 for n in seen.counts.values()),
            "early": sum(at < 0 for at in late), "late": quantiles(late),
            "cpu_percent": round((used - cpu) / (time.time() - began) * 100),
            "memory_kb": memory,
        }  # fmt: skip
        for size in arguments.burst:
            at = int((time.time() + 4 + size / 8000) * 1000)
            before, _ = dispatchers.usage()
            numbers = range(len(due), len(due) + size)
            due.update(dict.fromkeys(numbers, at))
            for number in numbers:
                publish(options, number, at)
            producer.close_all(60)
            deadline = time.time() + 60
            while time.time() < deadline and not seen.late.keys() >= set(numbers):
                seen.look(0.5)
            late = [seen.late[number] for number in numbers if number in seen.late]
            used = dispatchers.usage()[0] - before
            result[f"burst_{size}"] = {
                **quantiles(late), "lost": size - len(late), "cpu_ms": round(used * 1000),
            }  # fmt: skip
        result["load"] = os.getloadavg()[0]
        return result
    finally:
        dispatchers.stop()
        reader.kill()
        producer.close_all()


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=110)
    parser.add_argument("--near", type=float, default=0.6, help="part of them due within --seconds")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--burst", type=int, nargs="*", default=[1000, 3000, 10_000])
    arguments = parser.parse_args()
    kafka = LocalKafka().start()
    try:
        kafka.create_topic(TOPIC, 6)
        print(json.dumps(measure(arguments, kafka)))
    finally:
        kafka.stop()


if __name__ == "__main__":
    main()
