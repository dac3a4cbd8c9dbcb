"""Records read from their bytes, beside what Kafka's client reads of the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kafka import IsolationLevel
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.structs import TopicPartition

from kombu_kafka.clients.records import MAX_NAMES, PartitionRecords

PARTITION = TopicPartition("tasks", 3)
#: Lengths on either side of those at which their coding takes another byte.
SIZES = st.sampled_from([0, 1, 63, 64, 65, 8191, 8192, 9000])
BYTES = st.binary(max_size=20) | SIZES.map(lambda size: b"x" * size)
NAMES = st.text(max_size=8) | SIZES.map(lambda size: "n" * size)
RECORD = st.fixed_dictionaries(
    {
        "timestamp": st.integers(0, 2**41),
        "key": st.none() | BYTES,
        "value": st.none() | BYTES,
        "headers": st.lists(st.tuples(NAMES, st.none() | BYTES), max_size=70),
    }
)


def batch(records: list[dict[str, Any]], compression: int = 0) -> bytes:
    builder = MemoryRecordsBuilder(2, compression, 10_000_000)
    for record in records:
        builder.append(**record)
    builder.close()
    return bytes(builder.buffer())


def read(kind: Any, raw: bytes, **settings: Any) -> tuple[list[Any], Any]:
    reader = kind(0, PARTITION, MemoryRecords(raw), **settings)
    return reader.take(), reader


@given(st.lists(RECORD, min_size=1, max_size=3), st.sampled_from([0, 1]))
def test_they_are_what_kafkas_client_reads(records: list[dict[str, Any]], compression: int) -> None:
    raw = batch(records, compression)
    ours, reader = read(PartitionRecords, raw)
    theirs, reference = read(Fetcher.PartitionRecords, raw)
    # All but the size of all headers together, which nobody asks for.
    assert [record[:-1] for record in ours] == [record[:-1] for record in theirs]
    for progress in ("next_fetch_offset", "records_read", "bytes_read", "leader_epoch"):
        assert getattr(reader, progress) == getattr(reference, progress)
    assert not reader


RAW = batch(
    [{"timestamp": 1, "key": b"k", "value": b"v", "headers": [("one", b"1"), ("two", None)]}] * 2
)


@given(st.integers(0, len(RAW) - 62), st.integers(0, 255))
def test_bytes_that_are_no_record_are_corrupt_and_nothing_worse(place: int, byte: int) -> None:
    damaged = bytearray(RAW)
    size = RAW[61] // 2
    # A record's attributes are one byte, which Kafka's client takes for a number like the others.
    assume(place not in (1, size + 2))
    damaged[61 + place] = byte
    found: list[list[Any] | None] = []
    for kind in (PartitionRecords, Fetcher.PartitionRecords):
        try:
            found.append([one[:-1] for one in read(kind, bytes(damaged), check_crcs=False)[0]])
        except CorruptRecordError:
            found.append(None)
    # Kafka's client takes a value that ends beyond its batch for a shorter one.
    assert found[0] == found[1] or found[0] is None


def test_a_batch_whose_checksum_is_wrong_is_not_read() -> None:
    damaged = RAW[:-1] + bytes([RAW[-1] ^ 1])
    with pytest.raises(CorruptRecordError, match="tasks-3 at offset 0 fails its CRC"):
        read(PartitionRecords, damaged)


def test_what_was_given_up_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction's records, by whether it ended well: as Kafka's client has it."""
    builder = MemoryRecordsBuilder(2, 0, 10_000)
    builder.set_producer_state(7, 0, 0, True)
    builder.append(timestamp=1, key=None, value=b"v", headers=[])
    builder.close()
    raw = bytes(builder.buffer())

    class Aborted:
        producer_id, first_offset = 7, 0

    committed = {"isolation_level": IsolationLevel.READ_COMMITTED}
    assert len(read(PartitionRecords, raw, **committed)[0]) == 1
    found, reader = read(PartitionRecords, raw, aborted_transactions=[Aborted()], **committed)
    assert (found, reader.next_fetch_offset) == ([], 1)


def test_names_that_anybody_makes_up_take_no_memory_for_ever() -> None:
    from kombu_kafka.clients import records

    made_up = [(f"name-{number}", b"") for number in range(2 * MAX_NAMES)]
    raw = batch([{"timestamp": 1, "key": None, "value": b"", "headers": made_up}])
    assert read(PartitionRecords, raw)[0][0].headers == made_up
    assert len(records._names) <= MAX_NAMES
