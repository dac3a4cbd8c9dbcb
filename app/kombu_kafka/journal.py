"""What is done, remembered beside the worker.

Offsets are committed to Kafka a few times a second. The journal closes the window between two
commits: each acknowledgement is appended to a file before anything else happens, so that a killed
process repeats only what was in flight. It survives the process, not the host; there, and where
it is missing or damaged, Kafka's committed offset holds and the window's messages run again.

One file a partition::

    {"version": 1, "cluster": …, "group": …, "topic": …, "topic_id": …, "partition": 0}
    <offset> <record timestamp> <crc32 of the two, hex>     done
    <offset> committed <crc32 of the two, hex>              Kafka was told, up to here
    …

Where Kafka's committed offset is lower than what the journal says it was told, a person has moved
it to have records run again: the journal is set aside.

The topic's id and each record's timestamp keep a journal from speaking of other records that have
the same offsets (a topic that was deleted and made again).
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

__all__ = ("Journal", "JournalIdentity")

logger = logging.getLogger(__name__)

_COMMITTED = "committed"

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
    version: int = 1


class Journal:
    """The acknowledged offsets of one partition since the last commits.

    Not thread-safe. A journal that can't be written is given up with a warning: the worker goes
    on with what Kafka's commits give.

    Arguments:
        directory: where the file lies; made if missing.
        identity: whose progress it is.
        committed: the group's committed offset in Kafka, or None.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        identity: JournalIdentity,
        committed: int | None = None,
    ) -> None:
        self._identity = identity
        #: What Kafka was told last.
        self._committed = -1
        self.path = Path(directory) / f"{identity.topic}-{identity.partition}.journal"
        #: Offset → timestamp of records that are done and may lie above the committed offset.
        self.done: dict[int, int] = {}
        self._lines = 0
        self._fd: int | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._read()
            self._compare(-1 if committed is None else committed)
            self._rewrite()
        except OSError as exc:
            self._give_up(exc)

    def append(self, offset: int, timestamp: int) -> None:
        """Remember that the record at `offset` is done."""
        self.done[offset] = timestamp
        self._write(_line(offset, timestamp))

    def committed(self, watermark: int) -> None:
        """Forget what lies below `watermark`: Kafka knows it now."""
        self._committed = watermark
        for offset in [offset for offset in self.done if offset < watermark]:
            del self.done[offset]
        self._write(_line(watermark, _COMMITTED))
        if self._lines - len(self.done) >= COMPACT_AFTER:
            try:
                self._rewrite()
            except OSError as exc:
                self._give_up(exc)

    def close(self) -> None:
        """Close the file; it stays."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _write(self, line: bytes) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, line)
        except OSError as exc:
            self._give_up(exc)
        self._lines += 1

    def _compare(self, committed: int) -> None:
        if committed >= self._committed:
            return
        logger.warning(
            "Journal %s is set aside: Kafka was told offset %d and now has %s, so somebody wants "
            "records to run again.", self.path, self._committed, committed if committed >= 0 else
            "none",
        )  # fmt: skip
        self._committed = -1
        self.done.clear()

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
        if found != asdict(self._identity):
            logger.warning(
                "Journal %s belongs to another topic, group or cluster, or is damaged: it is "
                "ignored, and Kafka's committed offset holds.", self.path,
            )  # fmt: skip
            return
        damaged = 0
        for line in lines[1:]:
            entry = _entry(line)
            if entry is None:
                damaged += 1
            elif entry[1] == _COMMITTED:
                self._committed = entry[0]
            else:
                self.done[entry[0]] = int(entry[1])
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
        lines = [json.dumps(asdict(self._identity)).encode() + b"\n"]
        lines += [_line(offset, timestamp) for offset, timestamp in sorted(self.done.items())]
        lines += [_line(self._committed, _COMMITTED)] if self._committed >= 0 else []
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            os.write(fd, b"".join(lines))
            partial.replace(self.path)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        self._lines = len(self.done)

    def _give_up(self, exc: OSError) -> None:
        self.close()
        logger.warning(
            "Journal %s can't be written (%s): if this worker is killed, what it did since the "
            "last commit runs again; mend the directory and restart the worker.", self.path, exc,
        )  # fmt: skip


def _line(offset: int, fact: int | str) -> bytes:
    entry = f"{offset} {fact}"
    return f"{entry} {crc32(entry.encode()):08x}\n".encode()


def _entry(line: bytes) -> tuple[int, str] | None:
    entry, _, checksum = line.rpartition(b" ")
    if checksum != f"{crc32(entry):08x}".encode():
        return None
    offset, _, fact = entry.decode().partition(" ")
    return int(offset), fact
