"""The text beside a committed offset: who owns the partition, and what is done above the offset.

Kafka keeps one offset a partition and group, and up to 4,096 characters of text with it. Below the
offset all is done; what is done above it would run again on a host that has no journal, so the text
says it, together with who committed it::

    v1;<crc32 of the rest, hex>;o=<owner>;w=<offset>;i=<topic>;j=<journal>;a=<attempts>;<form>=<done>

``w`` is the offset the text was written for: a text beside another offset says nothing. ``i`` is a
digest of the topic's id: a topic made anew is another topic. ``a`` counts the attempts at records
that may have taken their worker down (distance from the offset ``.`` attempts, by commas). `done` is
base85 of run lengths (``r``: not done, done, not done, …, as LEB128) or of bits (``b``: one an
offset, least significant first), whichever is shorter; both begin at the offset.

Text that is anything else is somebody else's, and means nothing here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote
from zlib import crc32

__all__ = ("LIMIT", "MAX_OWNER", "PAUSE_AT", "CommitMetadata", "decode", "digest", "encode", "fill")

#: Characters that brokers keep of a commit's metadata (their ``offset.metadata.max.bytes``).
LIMIT = 4096
#: Part of `LIMIT` from which on nothing more should be fetched.
PAUSE_AT = 0.75
#: Characters of an owner's name that are kept, escapes counted.
MAX_OWNER = 256
#: Records whose attempts are told, those with the lowest offsets.
MAX_ATTEMPTS = 50

_VERSION = "v1"
_RUNS, _BITS = "r", "b"


@dataclass(frozen=True)
class CommitMetadata:
    """What a commit's metadata says.

    Attributes:
        owner: who committed, or an empty text.
        watermark: the offset that was committed with it.
        done: ranges of offsets that are done, ascending, all above the watermark.
        topic: digest of the topic's id (see `digest`), or an empty text.
        journal: id of the committer's journal, or an empty text.
        attempts: how often a record was begun and not finished, by offset.
    """

    owner: str
    watermark: int
    done: tuple[range, ...] = ()
    topic: str = ""
    journal: str = ""
    attempts: Mapping[int, int] = field(default_factory=dict)


def digest(topic_id: object) -> str:
    """Return the short form of a topic's id that metadata carries."""
    return f"{crc32(str(topic_id).encode()):08x}"


def encode(
    owner: str,
    watermark: int,
    done: Iterable[range] = (),
    *,
    topic: str = "",
    journal: str = "",
    attempts: Mapping[int, int] | None = None,
) -> str:
    """Return the metadata of a commit, at most `LIMIT` characters.

    Where not all of `done` fits, the lowest part is told: what is left out may run again on a host
    without a journal, and `fill` is above 1.

    Arguments:
        owner: who commits.
        watermark: the offset that is committed.
        done: ranges of offsets that are done: ascending, apart, not below the watermark.
        topic: digest of the topic's id.
        journal: id of the committer's journal.
        attempts: how often records were begun and not finished, by offset.

    Raises:
        ValueError: the ranges are not as they should be.
    """
    head = _head(owner, watermark, topic, journal, attempts)
    room = (LIMIT - len(_sealed(head)) - len(";r=")) // 5 * 4
    ranges = _checked(done, watermark)
    runs, bits = _runs(ranges, watermark), _bits(ranges, watermark, room)
    if len(runs) > room:
        # Bits then reach further, unless the runs that fit are long.
        runs, reach = _cut(runs, room)
        form, coded = (_RUNS, runs) if reach >= room * 8 else (_BITS, bits)
    else:
        whole = not ranges or ranges[-1].stop - watermark <= room * 8
        form, coded = (_BITS, bits) if whole and len(bits) < len(runs) else (_RUNS, runs)
    return _sealed(f"{head};{form}={base64.b85encode(coded).decode()}")


def fill(watermark: int, done: Iterable[range]) -> float:
    """Return which part of `LIMIT` it takes to tell all of `done` (above 1: it does not fit)."""
    ranges = _checked(done, watermark)
    if not ranges:
        return 0.0
    size = min(len(_runs(ranges, watermark)), (ranges[-1].stop - watermark + 7) // 8)
    return size * 5 / 4 / LIMIT


def decode(text: str | None) -> CommitMetadata | None:
    """Return what a commit's metadata says; None if it is damaged, or not this transport's."""
    try:
        version, checksum, rest = (text or "").split(";", 2)
        if version != _VERSION or checksum != f"{crc32(rest.encode()):08x}":
            return None
        *fields, (form, coded) = (part.split("=", 1) for part in rest.split(";", 5))
        named: dict[str, str] = dict(fields)
        watermark = int(named["w"])
        data = base64.b85decode(coded)
        read = {_RUNS: _read_runs, _BITS: _read_bits}[form]
        return CommitMetadata(
            owner=unquote(named["o"]),
            watermark=watermark,
            done=tuple(read(data, watermark)),
            topic=named["i"],
            journal=named["j"],
            attempts=_read_attempts(named["a"], watermark),
        )
    except (ValueError, KeyError):
        return None


def _head(
    owner: str, watermark: int, topic: str, journal: str, attempts: Mapping[int, int] | None
) -> str:
    name = quote(owner, safe="@.:/", errors="replace")
    while len(name) > MAX_OWNER:
        owner = owner[:-1]
        name = quote(owner, safe="@.:/", errors="replace")
    told = sorted((attempts or {}).items())[:MAX_ATTEMPTS]
    counts = ",".join(f"{offset - watermark}.{count}" for offset, count in told)
    return f"o={name};w={watermark};i={topic};j={journal};a={counts}"


def _sealed(rest: str) -> str:
    return f"{_VERSION};{crc32(rest.encode()):08x};{rest}"


def _checked(done: Iterable[range], watermark: int) -> list[range]:
    ranges, last = [], watermark
    for found in done:
        if found.start < last or found.stop <= found.start or found.step != 1:
            raise ValueError(f"{found} is no range of done offsets from {last} on")
        ranges.append(found)
        last = found.stop
    return ranges


def _runs(ranges: Sequence[range], watermark: int) -> bytes:
    coded, last = bytearray(), watermark
    for done in ranges:
        for length in (done.start - last, done.stop - done.start):
            while length > 0x7F:
                coded.append(length & 0x7F | 0x80)
                length >>= 7
            coded.append(length)
        last = done.stop
    return bytes(coded)


def _read_runs(data: bytes, watermark: int) -> list[range]:
    lengths, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            lengths.append(value)
            value = shift = 0
    if shift or len(lengths) % 2:
        raise ValueError("run lengths end in the middle")
    ranges, last = [], watermark
    for gap, length in zip(lengths[::2], lengths[1::2], strict=True):
        start = last + gap
        last = start + length
        ranges.append(range(start, last))
    return ranges


def _cut(runs: bytes, room: int) -> tuple[bytes, int]:
    """Return the pairs of run lengths that fit into `room` bytes, and how far they reach."""
    end = reach = seen = distance = value = shift = 0
    for index, byte in enumerate(runs[:room]):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            distance += value
            value = shift = 0
            seen += 1
            if seen % 2 == 0:
                end, reach = index + 1, distance
    return runs[:end], reach


def _bits(ranges: Sequence[range], watermark: int, room: int) -> bytes:
    """Return one bit an offset, for as many offsets as `room` bytes hold."""
    # As text first: shifting and joining one large number would take quadratic time.
    limit, last, text = watermark + room * 8, watermark, []
    for done in ranges:
        if done.start >= limit:
            break
        stop = min(done.stop, limit)
        text += ["0" * (done.start - last), "1" * (stop - done.start)]
        last = stop
    bits = "".join(text)
    return int(bits[::-1] or "0", 2).to_bytes((len(bits) + 7) // 8, "little")


def _read_bits(data: bytes, watermark: int) -> list[range]:
    bits = f"{int.from_bytes(data, 'little'):b}"[::-1]
    ranges, start = [], bits.find("1")
    while start >= 0:
        stop = bits.find("0", start)
        stop = len(bits) if stop < 0 else stop
        ranges.append(range(watermark + start, watermark + stop))
        start = bits.find("1", stop)
    return ranges


def _read_attempts(text: str, watermark: int) -> dict[int, int]:
    pairs = (pair.split(".") for pair in text.split(",") if pair)
    return {watermark + int(distance): int(count) for distance, count in pairs}
