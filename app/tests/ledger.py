"""A ledger of what ran, kept outside Kafka: the judge of reliability tests.

As a task module (`CELERY_APP_MODULE=tests.ledger`) its tasks append a line when they start and one
when they end to the file that LEDGER_FILE names; a line is one `write` to a file opened for
appending, so lines of several processes never mix. The test adds a line whenever it kills
something. `check` then proves from the file alone that nothing was lost, that every partition ran
in its order, and that what ran twice was in flight when something was killed.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from celery import Task, shared_task

__all__ = ["Ledger", "Verdict", "entry"]


@shared_task(bind=True, name="ledger.entry")
def entry(self: Task, sequence: int, seconds: float = 0.0, until: str | None = None) -> None:
    """Note the start, work for `seconds` and until the file `until` is there, note the end."""
    ledger = Ledger(Path(os.environ["LEDGER_FILE"]))
    origin = self.request.kafka_partition, self.request.kafka_offset, sequence
    ledger.note("start", *origin)
    time.sleep(seconds)
    while until is not None and not Path(until).exists():
        time.sleep(0.02)
    ledger.note("end", *origin)


@dataclass
class Verdict:
    """What a ledger proves.

    Attributes:
        lost: Tasks, by partition and sequence, that never ended.
        faults: Sentences about order that was broken and repeats that were not in flight.
        repeats: How many runs were repeats.
    """

    lost: list[tuple[int, int]]
    faults: list[str]
    repeats: int

    @property
    def ok(self) -> bool:
        return not self.lost and not self.faults


class Ledger:
    """The file of what happened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, event: str, *numbers: int) -> None:
        """Append a line, whole."""
        line = " ".join((event, *map(str, numbers), str(os.getpid()))) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def lines(self) -> list[list[str]]:
        """What was noted so far, in order."""
        if not self.path.exists():
            return []
        # Who reads at the moment of a write may see it up to the end of a page of memory.
        whole, _, _ = self.path.read_text().rpartition("\n")
        return [line.split() for line in whole.splitlines()]

    def ended(self) -> int:
        """How many different tasks have ended."""
        return len({tuple(line[1:4]) for line in self.lines() if line[0] == "end"})

    def check(self, sent: Mapping[int, int]) -> Verdict:
        """Judge the ledger of tasks sent as sequences 0, 1, 2 … to each partition.

        Args:
            sent: How many tasks were sent, by partition.
        """
        starts: defaultdict[int, list[int]] = defaultdict(list)
        ended: defaultdict[int, set[int]] = defaultdict(set)
        running: dict[int, int] = {}
        killed_since_start: defaultdict[int, bool] = defaultdict(bool)
        faults: list[str] = []
        repeats = 0
        for line in self.lines():
            if line[0] == "kill":
                running.clear()
                killed_since_start = defaultdict(lambda: True)
                continue
            partition, offset, sequence = map(int, line[1:4])
            where = f"partition {partition}, offset {offset}"
            if line[0] == "end":
                ended[partition].add(sequence)
                running.pop(partition, None)
                continue
            if partition in running:
                faults.append(f"{where} started while offset {running[partition]} ran")
            if offset in starts[partition]:
                repeats += 1
                if starts[partition][-1] != offset:
                    faults.append(f"{where} ran again, but {starts[partition][-1]} ran after it")
                elif not killed_since_start[partition]:
                    faults.append(f"{where} ran again, but nothing was killed meanwhile")
            elif starts[partition] and offset < starts[partition][-1]:
                faults.append(f"{where} ran after offset {starts[partition][-1]}")
            starts[partition].append(offset)
            running[partition] = offset
            killed_since_start[partition] = False
        lost = [
            (partition, sequence)
            for partition, count in sent.items()
            for sequence in range(count)
            if sequence not in ended[partition]
        ]
        return Verdict(lost, faults, repeats)
