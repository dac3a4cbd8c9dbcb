"""Replaying and skipping many letters: in batches, at a rate, each letter once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from kombu_kafka.errors import PublishError
from kombu_kafka.options import Options
from scheduler.dlq.desk import Deed, Desk, FencedError
from scheduler.dlq.history import REPLAYED, SKIPPED, Act
from scheduler.dlq.index import Entry, Index
from scheduler.dlq.letters import Letter, LetterId
from scheduler.dlq.outgoing import Changes, Outgoing, Refusal, guard, outgoing, whole
from scheduler.dlq.reader import Reader

__all__ = ["Order", "Outcome", "replay", "skip"]

#: Letters, and bytes of their bodies, in one transaction.
BATCH = 100
BATCH_BYTES = 4 << 20
#: How often in a row somebody else may take over before this one gives up.
MAX_FENCED = 5

#: Told while it runs: letters dealt with, letters there are.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a person asked for.

    Attributes:
        by: Who.
        why: The reason given.
        changes: What is to be different.
        force: Replay what was replayed or skipped before, and what was replayed too often.
        rate: Letters a second at most; None sends as fast as it goes.
        dry_run: Look, but do nothing.
    """

    by: str
    why: str = ""
    changes: Changes = field(default_factory=Changes)
    force: bool = False
    rate: float | None = None
    dry_run: bool = False


@dataclass
class Outcome:
    """What became of the letters.

    Attributes:
        done: Those replayed (or skipped), with where they went.
        refused: Those left as they were, with the reason.
        last: The last letter dealt with.
        stopped: Whether it ended before that was the last of all.
    """

    done: list[tuple[LetterId, str]] = field(default_factory=list)
    refused: list[tuple[LetterId, str]] = field(default_factory=list)
    last: LetterId | None = None
    stopped: bool = False

    @property
    def dealt_with(self) -> int:
        return len(self.done) + len(self.refused)


def replay(
    options: Options,
    reader: Reader,
    index: Index,
    ids: Sequence[LetterId],
    order: Order,
    progress: Progress = lambda *_: None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Replay letters in the order they lie, which is the order in which a key's tasks failed.

    Killed at any point, it has replayed each letter once or not at all, and the history says
    which; the same call goes on where it stopped. Told to `stop`, it ends after the batch in hand.

    Raises:
        FencedError: Somebody else kept taking over.
        BrokerUnavailableError: The brokers don't answer.
    """
    outcome = Outcome()
    index.refresh(letters=False)  # a history of another topic of that name knows nothing
    targets = _Targets(reader)
    desk = Desk(options, reader, index.history)
    stop = stop or threading.Event()
    pace = _Pace(order.rate, stop)
    # A reader of its own: the other one is used between two letters.
    with Reader(options) as stream, desk if not order.dry_run else nullcontext():
        for batch in _batches(stream.letters(index.topic, ids), pace.batch):
            pace.wait()
            if stop.is_set():
                outcome.stopped = True
                return outcome
            _retry_fenced(desk, lambda batch=batch: _replay_batch(  # type: ignore[misc]
                desk, index, reader, targets, batch, order, outcome))  # fmt: skip
            outcome.last = batch[-1].id
            progress(outcome.dealt_with, len(ids))
            pace.done(len(batch))
    known = {one for one, _ in (*outcome.done, *outcome.refused)}
    outcome.refused += [(one, "there is no such letter") for one in ids if one not in known]
    return outcome


def skip(
    options: Options, reader: Reader, index: Index, entries: Iterable[Entry], order: Order
) -> Outcome:
    """Mark letters as skipped: a person has decided that they need no replay."""
    outcome = Outcome()
    index.refresh(letters=False)
    wanted = list(entries)
    desk = Desk(options, reader, index.history)

    def act(batch: list[Entry]) -> None:
        deeds, refused = [], []
        for entry in batch:
            state = index.history.state(entry.letter.id)
            if state != "new" and not order.force:
                refused.append((entry.letter.id, f"it was {state} before"))
                continue
            said = Act(
                act=SKIPPED, by=order.by, at=time.time(), why=order.why, task=entry.letter.task
            )
            deeds.append(Deed(entry.letter.id, said))
        if deeds:
            desk.carry_out(deeds)
        outcome.refused += refused
        outcome.done += [(deed.letter, "") for deed in deeds]

    with desk:
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            _retry_fenced(desk, lambda part=part: act(part))  # type: ignore[misc]
    return outcome


def _replay_batch(
    desk: Desk,
    index: Index,
    reader: Reader,
    targets: _Targets,
    batch: list[Letter],
    order: Order,
    outcome: Outcome,
) -> None:
    deeds, refused = [], []
    for letter in batch:
        entry = Entry(letter, index.history.of(letter.id), index.history.state(letter.id))
        try:
            guard(entry, force=order.force)
            record = outgoing(whole(letter, reader), order.changes, time.time())
            targets.check(record)
        except Refusal as exc:
            refused.append((letter.id, str(exc)))
            continue
        deeds.append(_deed(entry, record, order))
    done = _carry_out(desk, deeds, refused) if deeds and not order.dry_run else deeds
    outcome.refused += refused
    outcome.done += [(deed.letter, deed.act.to) for deed in done]


def _carry_out(desk: Desk, deeds: list[Deed], refused: list[tuple[LetterId, str]]) -> list[Deed]:
    """Carry out all at once; one by one if the brokers refuse a record among them."""
    try:
        desk.carry_out(deeds)
    except PublishError as exc:
        if len(deeds) == 1:
            refused.append((deeds[0].letter, str(exc)))
            return []
        return [deed for one in deeds for deed in _carry_out(desk, [one], refused)]
    return deeds


def _deed(entry: Entry, record: Outgoing, order: Order) -> Deed:
    forced = "forced" if order.force and _would_refuse(entry) else ""
    note = ", ".join(filter(None, (order.changes.note, forced)))
    said = Act(
        act=REPLAYED, by=order.by, at=time.time(), why=order.why, to=record.where, note=note,
        task=entry.letter.task,
    )  # fmt: skip
    return Deed(entry.letter.id, said, record)


def _would_refuse(entry: Entry) -> bool:
    try:
        guard(entry, force=False)
    except Refusal:
        return True
    return False


def _retry_fenced(desk: Desk, act: Callable[[], None]) -> None:
    """Act; if somebody else took over, take over again, knowing then what they did."""
    for attempt in range(MAX_FENCED):
        try:
            return act()
        except FencedError:
            if attempt == MAX_FENCED - 1:
                raise
            time.sleep(0.2 * 2**attempt)
            desk.open()
    return None


def _batches(letters: Iterator[Letter], most: int) -> Iterator[list[Letter]]:
    batch: list[Letter] = []
    size = 0
    for letter in letters:
        if batch and (len(batch) >= most or size + letter.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(letter)
        size += letter.size
    if batch:
        yield batch


class _Targets:
    """Topics that replays go to: a name mistyped must not make a topic."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._counts: dict[str, int] = {}

    def check(self, record: Outgoing) -> None:
        if record.topic not in self._counts:
            self._counts[record.topic] = len(self._reader.partitions(record.topic))
        count = self._counts[record.topic]
        if not count:
            raise Refusal(f"there is no topic {record.topic}: create it, or name another")
        if record.partition is not None and record.partition >= count:
            raise Refusal(
                f"the topic {record.topic} has no partition {record.partition}, its last is"
                f" {count - 1}: name one with --to-partition, or let the key choose with --by-key"
            )


class _Pace:
    """Keeps to a rate."""

    def __init__(self, rate: float | None, stop: threading.Event) -> None:
        self._rate = rate
        self._stop = stop
        self.batch = BATCH if rate is None else max(1, min(BATCH, int(rate / 2)))
        self._next = time.monotonic()

    def done(self, letters: int) -> None:
        """Take note of letters that went."""
        if self._rate is not None:
            self._next = max(self._next, time.monotonic() - 1) + letters / self._rate

    def wait(self) -> None:
        """Wait until the next batch may go, or none is to go any more."""
        self._stop.wait(max(0.0, self._next - time.monotonic()))
