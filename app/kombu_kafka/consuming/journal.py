"""What is done, remembered beside the worker.

Offsets are committed to Kafka a few times a second. The journal closes the window between two
commits: each acknowledgement is appended to a file before anything else happens, so that a killed
process repeats only what was in flight. It survives the process, not the host; there, and where
it is missing or damaged, Kafka's word holds and the window's messages run again.

One file a partition::

    {"version": 2, "cluster": …, "group": …, "topic": …, "topic_id": …, "partition": 0, "id": …}
    <offset> done <record timestamp> <crc32 of the line so far, hex>
    <offset> attempts <number of times begun and not finished> <crc32>
    <offset> told <crc32 of the metadata> <crc32>       Kafka has this offset, and all done is there
    …

The journal speaks only where Kafka's last word for the partition was this journal's: the word it
began upon, or a commit that carries its id. Anything else was said by a person who moved the
offsets to have records run again, or by another host that owned the partition meanwhile: then the
journal is set aside. Where Kafka has no word any more, the last that it had from this journal holds.

The topic's id and each record's timestamp keep a journal from speaking of other records that have
the same offsets (a topic that was deleted and made again).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4
from zlib import crc32

from .ranges import within

__all__ = ("Journal", "JournalIdentity")

logger = logging.getLogger(__name__)

_DONE, _ATTEMPTS, _TOLD = "done", "attempts", "told"

#: Lines after which a journal is rewritten without what Kafka has been told.
COMPACT_AFTER = 1000


@dataclass(frozen=True)
class JournalIdentity:
    """Whose progress a journal holds; a file that says otherwise is set aside."""

    cluster: str
    group: str
    topic: str
    topic_id: str
    partition: int
    version: int = 2


class Journal:
    """The acknowledged offsets of one partition since the last commits.

    Not thread-safe. A journal that can't be written is given up with a warning: the worker goes
    on with what Kafka's commits give.

    Arguments:
        directory: where the file lies; made if missing.
        identity: whose progress it is.
        committed: the group's committed offset in Kafka, or None.
        metadata: the text that lies beside it.
        journal: id of the journal that the text names, or an empty text.

    Attributes:
        path: the file.
        id: names this journal in commits; a journal that was set aside gets another.
        done: offset → timestamp of records that are done and that Kafka was not told of.
        attempts: offset → how often a record was begun and not finished.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        identity: JournalIdentity,
        committed: int | None = None,
        metadata: str = "",
        journal: str = "",
    ) -> None:
        self._identity = identity
        #: What Kafka was told last: the offset (-1: nothing) and a checksum of the metadata.
        self._told = (-1, 0)
        self.path = Path(directory) / f"{identity.topic}-{identity.partition}.journal"
        self.id = ""
        self.done: dict[int, int] = {}
        self.attempts: dict[int, int] = {}
        self._lines = 0
        self._fd: int | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._read()
            self._compare((-1 if committed is None else committed, crc32(metadata.encode())),
                          journal)  # fmt: skip
            self._rewrite()
        except OSError as exc:
            self._give_up(exc)

    @property
    def told(self) -> int | None:
        """The offset that Kafka was told last; None for none."""
        return None if self._told[0] < 0 else self._told[0]

    @property
    def lines(self) -> int:
        """Number of lines in the file, its head not counted."""
        return self._lines

    def append(self, offset: int, timestamp: int) -> None:
        """Remember that the record at `offset` is done."""
        self.done[offset] = timestamp
        self.attempts.pop(offset, None)
        self._write(_line(offset, _DONE, timestamp))

    def attempt(self, offset: int, attempts: int) -> None:
        """Remember that the record at `offset` was begun so often and not finished."""
        self.attempts[offset] = attempts
        self._write(_line(offset, _ATTEMPTS, attempts))

    def committed(self, watermark: int, metadata: str = "", told: Sequence[range] = ()) -> None:
        """Forget what lies below `watermark` or in the ranges `told`: Kafka knows it now."""
        self._told = (watermark, crc32(metadata.encode()))
        self.done = {
            offset: timestamp
            for offset, timestamp in self.done.items()
            if offset >= watermark and not within(told, offset)
        }
        for offset in [offset for offset in self.attempts if offset < watermark]:
            del self.attempts[offset]
        self._write(_line(watermark, _TOLD, self._told[1]))
        if self._lines - len(self.done) - len(self.attempts) >= COMPACT_AFTER:
            self._compact()

    def cut(self, offset: int, *, done: bool) -> None:
        """Forget which records at `offset` and above were begun, and with `done` which are done."""
        said = len(self.done) + len(self.attempts)
        if done:
            self.done = {at: timestamp for at, timestamp in self.done.items() if at < offset}
        self.attempts = {at: count for at, count in self.attempts.items() if at < offset}
        if len(self.done) + len(self.attempts) < said:
            self._compact()

    def close(self) -> None:
        """Close the file; it stays."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _compact(self) -> None:
        try:
            self._rewrite()
        except OSError as exc:
            self._give_up(exc)

    def _write(self, line: bytes) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, line)
        except OSError as exc:
            self._give_up(exc)
        self._lines += 1

    def _compare(self, word: tuple[int, int], journal: str) -> None:
        """Set the journal aside unless Kafka's last word was this journal's."""
        if self.id and (word == self._told or (journal == self.id and word[0] >= self._told[0])):
            self._told = word
            return
        if self.id and word[0] < 0:
            logger.warning(
                "Kafka has no offset of the group %s for %s-%d: it forgets those of groups without "
                "workers (offsets.retention.minutes). Going on from offset %d, which it had by "
                "journal %s; what was done above it may run again. To start over, reset the offsets.",
                self._identity.group, self._identity.topic, self._identity.partition,
                self._told[0], self.path,
            )  # fmt: skip
            return
        if self.id and (self.done or self._told[0] >= 0):
            logger.warning(
                "Journal %s is set aside: Kafka was told offset %s by it and now has %s from "
                "somebody else, who wants records to run again or has owned the partition since.",
                self.path, _shown(self._told[0]), _shown(word[0]),
            )  # fmt: skip
        self.id = uuid4().hex[:8]
        self._told = word
        self.done.clear()
        self.attempts.clear()

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        lines = content.split(b"\n")
        torn = lines.pop()  # what follows the last newline: a line cut short by a crash, or nothing
        try:
            found = json.loads(lines[0]) if lines else None
        except ValueError:
            found = None
        name = found.pop("id", None) if isinstance(found, dict) else None
        if found != asdict(self._identity) or not isinstance(name, str):
            logger.warning(
                "Journal %s belongs to another topic, group or cluster, or is damaged: it is "
                "ignored, and Kafka's committed offset holds.", self.path,
            )  # fmt: skip
            return
        self.id = name
        damaged = 0
        for line in lines[1:]:
            entry = _entry(line)
            if entry is None:
                damaged += 1
                continue
            offset, fact, value = entry
            if fact == _TOLD:
                self._told = (offset, value)
            elif fact == _ATTEMPTS:
                self.attempts[offset] = value
            else:
                self.done[offset] = value
                self.attempts.pop(offset, None)
        if damaged:
            logger.warning(
                "Journal %s has %d damaged lines: what they recorded may run again.",
                self.path, damaged,
            )  # fmt: skip
        elif torn:
            logger.info("Journal %s ends in a line cut short; it is ignored.", self.path)

    def _rewrite(self) -> None:
        self.close()
        partial = self.path.with_suffix(".partial")
        lines = [json.dumps(asdict(self._identity) | {"id": self.id}).encode() + b"\n"]
        lines += [_line(offset, _DONE, timestamp) for offset, timestamp in self.done.items()]
        lines += [_line(offset, _ATTEMPTS, count) for offset, count in self.attempts.items()]
        lines.append(_line(self._told[0], _TOLD, self._told[1]))
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            os.write(fd, b"".join(lines))
            partial.replace(self.path)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        self._lines = len(self.done) + len(self.attempts)

    def _give_up(self, exc: OSError) -> None:
        self.close()
        logger.warning(
            "Journal %s can't be written (%s): if this worker is killed, what it did since the "
            "last commit runs again; mend the directory and restart the worker.", self.path, exc,
        )  # fmt: skip


def _shown(offset: int) -> str:
    return "none" if offset < 0 else str(offset)


def _line(offset: int, fact: str, value: int) -> bytes:
    entry = f"{offset} {fact} {value}"
    return f"{entry} {crc32(entry.encode()):08x}\n".encode()


def _entry(line: bytes) -> tuple[int, str, int] | None:
    entry, _, checksum = line.rpartition(b" ")
    if checksum != f"{crc32(entry):08x}".encode():
        return None
    try:
        offset, fact, value = entry.decode().split(" ")
        return int(offset), fact, int(value)
    except ValueError:
        return None
