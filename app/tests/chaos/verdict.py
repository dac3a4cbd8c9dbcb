"""What a history proves: nothing lost, order kept, and why whatever ran twice did."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from tests.chaos.history import Event

__all__ = ["SETTLE", "Verdict", "judge"]

#: Seconds from a task's end until Kafka must know it: `commit_interval`, a rebalance, a slow machine.
SETTLE = 3.0

#: Part of the session after which whoever is not heard of may have lost its partitions: its last
#: sign of life may have been a heartbeat's interval, a third of the session, before it froze.
OUT = 0.5

#: A task: its lane and its number there.
Task = tuple[str, int]


@dataclass
class Freeze:
    """A stretch in which a worker stood still: from `since`, and from `noted` at the latest, until `until`."""

    since: float
    noted: float
    until: float = math.inf

    def long(self, now: float, session: float) -> bool:
        """Say whether by `now` the worker may have lost what it owned, and another own it."""
        return min(now, self.until) - self.since >= session * OUT


@dataclass(frozen=True)
class Trouble:
    """A stretch in which a broker was slow, cut off or (`away`) dead: commits took longer."""

    since: float
    until: float
    away: bool


@dataclass
class Run:
    """One run of a task."""

    worker: str
    pid: int
    at: tuple[int, int]
    begun: float
    ended: float | None = None
    killed: bool = False
    freeze: Freeze | None = None


@dataclass
class Verdict:
    """What one queue's tasks went through.

    Attributes:
        confirmed: Tasks whose publishing was confirmed.
        unsure: Tasks whose publishing failed; they may have run or not.
        done: Different tasks that ended.
        lost: Confirmed tasks that never ended and are no dead letters.
        dead: Tasks that are dead letters.
        repeats_running: Runs of a task that ran when its worker was killed, or frozen for so long
            that another may have taken its place.
        repeats_unsettled: Runs of a task that had ended, but Kafka had not been told when its worker
            was hit (only another worker runs those again: the journal of its own knows).
        overlaps: Runs that another worker began while one of the same lane was not over that had
            begun before its worker was frozen, for so long that it had lost its place.
        together: Runs that began while another of the same lane ran.
        disordered: Runs out of their lane's order.
        unexplained: Repeats of what was not in flight at a kill, and second records of a task.
        faults: A sentence for each of the last three: promises that were broken.
    """

    confirmed: int = 0
    unsure: int = 0
    done: int = 0
    lost: list[Task] = field(default_factory=list)
    dead: int = 0
    repeats_running: int = 0
    repeats_unsettled: int = 0
    overlaps: int = 0
    together: int = 0
    disordered: int = 0
    unexplained: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.lost and not self.faults


class _Judge:
    def __init__(
        self, ordered: bool, rewinds: bool, session: float, settle: float, trouble: list[Trouble]
    ) -> None:
        self.verdict = Verdict()
        self.ordered, self.rewinds = ordered, rewinds
        self.session, self.settle = session, settle
        self.runs: defaultdict[Task, list[Run]] = defaultdict(list)
        self.alive: defaultdict[str, list[Run]] = defaultdict(list)
        #: By lane: the task begun last, and the highest ever begun.
        self.last: dict[str, int] = {}
        self.highest: dict[str, int] = {}
        #: By worker: when it was killed, and when it stood still.
        self.kills: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self.freezes: defaultdict[str, list[Freeze]] = defaultdict(list)
        #: By worker and partition: when it began something there last.
        self.begun: dict[tuple[str, int], float] = {}
        self.trouble = sorted(trouble, key=lambda found: found.since)

    def start(self, event: Event) -> None:
        lane, number = event["lane"], event["n"]
        task, at = (lane, number), (event["at"][0], event["at"][1])
        run = Run(event["worker"], event["pid"], at, event["t"])
        if self.ordered:
            self._alone(run, lane, number)
        before = self.runs[task]
        if before:
            self._repeat(task, before[-1], run)
        if self.ordered and not event["late"]:
            self._in_order(lane, number, again=bool(before))
        before.append(run)
        self.alive[lane].append(run)
        self.begun[run.worker, at[0]] = run.begun

    def end(self, event: Event) -> None:
        for run in self.alive[event["lane"]]:
            if run.pid == event["pid"]:
                run.ended = event["t"]
        for run in self.runs[event["lane"], event["n"]]:
            if run.pid == event["pid"] and run.ended is None:
                run.ended = event["t"]
        self._bury()

    def hit(self, event: Event) -> None:
        worker, kind = event.get("worker"), event["kind"]
        if worker is None:
            return  # a broker: see trouble
        # It happened between these two.
        noted: float = event["t"]
        since: float = event.get("began", noted)
        if kind == "freeze":
            freeze = Freeze(since, noted)
            self.freezes[worker].append(freeze)
            for run in self._alive(worker):
                run.freeze = freeze
            return
        self.kills[worker].append((since, noted))
        for run in self._alive(worker):
            if event.get("pid") in (None, run.pid):
                run.killed = True
        self._bury()

    def thaw(self, event: Event) -> None:
        self.freezes[event["worker"]][-1].until = event["t"]

    def _alive(self, worker: str) -> list[Run]:
        return [run for runs in self.alive.values() for run in runs if run.worker == worker]

    def _bury(self) -> None:
        for lane, runs in self.alive.items():
            self.alive[lane] = [run for run in runs if run.ended is None and not run.killed]

    def _alone(self, run: Run, lane: str, number: int) -> None:
        for other in self.alive[lane]:
            if run.worker != other.worker and self._out(other, run.begun):
                self.verdict.overlaps += 1
            else:
                self.verdict.together += 1
                self.verdict.faults.append(
                    f"{lane}: {number} (offset {run.at[1]}, {run.worker}) began while offset"
                    f" {other.at[1]} ran ({other.worker})"
                )

    def _repeat(self, task: Task, before: Run, run: Run) -> None:
        what = f"{task[0]}: {task[1]} (offset {run.at[1]}, {run.worker})"
        if before.at != run.at:
            self.verdict.unexplained += 1
            self.verdict.faults.append(f"{what} has a second record, the first was {before.at}")
        elif before.killed or self._out(before, run.begun):
            self.verdict.repeats_running += 1
        elif self._unsettled(before, run):
            self.verdict.repeats_unsettled += 1
        else:
            self.verdict.unexplained += 1
            self.verdict.faults.append(
                f"{what} ran again at {run.begun:.2f}, and was not in flight at a kill: it ran from"
                f" {before.begun:.2f} to {before.ended} on {before.worker}"
            )

    def _out(self, run: Run, now: float) -> bool:
        """Say whether it ran when its worker was frozen, for so long that it lost its place."""
        return run.freeze is not None and run.freeze.long(now, self.session)

    def _unsettled(self, run: Run, again: Run) -> bool:
        """Say whether its worker lost its place before Kafka can have heard of the run's end.

        It was hit, or the group's coordinator was away for so long that the group began anew.
        """
        if run.ended is None:
            return False
        known = run.ended + self.settle
        for trouble in self.trouble:
            if trouble.since <= known and run.ended <= trouble.until:
                known = max(known, trouble.until + self.settle)
                if self._moved(run, again, trouble):
                    return True
        freezes = self.freezes[run.worker]
        long = [freeze for freeze in freezes if freeze.long(again.begun, self.session)]
        hits = [(freeze.since, freeze.noted) for freeze in long] + self.kills[run.worker]
        return any(run.begun <= noted and since <= known for since, noted in hits)

    def _moved(self, run: Run, again: Run, trouble: Trouble) -> bool:
        """Say whether the run's partition went to another worker as a broker was away.

        Only a group moves partitions, and only if its coordinator was away for so long that members
        lost their places. A worker that went on with the partition afterwards had kept it, and told
        Kafka what it had done.
        """
        away = Freeze(trouble.since, trouble.since, trouble.until)
        return (
            trouble.away
            and self.rewinds
            and again.worker != run.worker
            and away.long(trouble.until, self.session)
            and self.begun[run.worker, run.at[0]] <= trouble.until + self.settle
        )

    def _in_order(self, lane: str, number: int, again: bool) -> None:
        last, highest = self.last.get(lane, -1), self.highest.get(lane, -1)
        if not again and number < highest:
            self.verdict.disordered += 1
            self.verdict.faults.append(f"{lane}: {number} ran for the first time after {highest}")
        elif again and number < last and not self.rewinds:
            self.verdict.disordered += 1
            self.verdict.faults.append(f"{lane}: {number} ran again after {last}")
        self.last[lane], self.highest[lane] = number, max(number, highest)


def judge(
    events: Iterable[Event],
    queue: str,
    *,
    ordered: bool,
    rewinds: bool,
    session: float = math.inf,
    settle: float = SETTLE,
    dead: Collection[Task] = (),
) -> Verdict:
    """Judge the tasks of one queue.

    Args:
        events: The history.
        queue: Which queue.
        ordered: Whether a lane's tasks run one at a time, in order.
        rewinds: Whether another worker may go on from the last commit, and so run tasks again
            that others ran after.
        session: Seconds without a sign of life after which a worker's partitions go to others.
        settle: Seconds from a task's end until Kafka must know it.
        dead: The tasks that are dead letters.
    """
    events = list(events)
    # A broker's trouble is noted when it is over, and may explain what happened before.
    trouble = [
        Trouble(event["since"], event["t"], event["kind"] == "kill-broker")
        for event in events
        if "since" in event
    ]
    court = _Judge(ordered, rewinds, session, settle, trouble)
    confirmed: set[Task] = set()
    for event in events:
        kind = event["e"]
        if kind == "hit":
            court.hit(event)
        elif kind == "thaw":
            court.thaw(event)
        elif event.get("q") != queue:
            continue
        elif kind == "sent":
            confirmed.add((event["lane"], event["n"]))
        elif kind == "unsure":
            court.verdict.unsure += 1
        elif kind == "start":
            court.start(event)
        elif kind == "end":
            court.end(event)
    verdict = court.verdict
    done = {task for task, runs in court.runs.items() if any(run.ended for run in runs)}
    verdict.confirmed, verdict.done, verdict.dead = len(confirmed), len(done), len(set(dead))
    verdict.lost = sorted(confirmed - done - set(dead))
    return verdict
