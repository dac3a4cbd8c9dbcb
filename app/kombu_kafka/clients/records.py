"""A consumer's records, read from their bytes in half the time that Kafka's client takes.

A task has some twenty headers. kafka-python 3.0.12 calls a function for the length of each name and
of each value, builds two objects a record, and measures all headers once more for nobody.
The bytes are described at https://kafka.apache.org/documentation/#messageformat.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka import IsolationLevel
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.util import decode_varint
from kafka.structs import TopicPartition

__all__ = ("PartitionRecords",)

#: Names of headers as they lie in records, and what they say: the same few in each.
_names: dict[bytes, str] = {}
#: How many are remembered at most; anybody may write records with others.
MAX_NAMES = 256


class PartitionRecords(Fetcher.PartitionRecords):
    """What was fetched of a partition; stands in for the class of the same name in kafka-python."""

    def _unpack_records(
        self, tp: TopicPartition, records: Any, key_deserializer: None, value_deserializer: None
    ) -> Iterator[ConsumerRecord]:
        topic, partition = tp
        while (batch := records.next_batch()) is not None:
            if batch.magic < 2:
                raise CorruptRecordError(f"{topic}-{partition} has records of before Kafka 0.11")
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(
                    f"a batch of {topic}-{partition} at offset {batch.base_offset} fails its CRC"
                )
            self.leader_epoch = batch.leader_epoch
            if not (self._is_to_be_skipped(batch) or batch.is_control_batch):
                kind, epoch = batch.timestamp_type, batch.leader_epoch
                for size, offset, timestamp, key, value, headers in _read(batch):
                    self.records_read += 1
                    self.bytes_read += size
                    self.next_fetch_offset = offset + 1
                    yield ConsumerRecord(
                        topic, partition, epoch, offset, timestamp, kind, key, value, headers, None,
                        -1 if key is None else len(key), -1 if value is None else len(value), -1,
                    )  # fmt: skip
            # Also past records that were compacted away at its end, or it would be fetched for ever.
            self.next_fetch_offset = batch.next_offset
        self.drain()

    def _is_to_be_skipped(self, batch: Any) -> bool:
        """Whether a batch belongs to a transaction that was given up."""
        if self.isolation_level != IsolationLevel.READ_COMMITTED or not batch.has_producer_id():
            return False
        self._consume_aborted_transactions_up_to(batch.last_offset)
        if self._contains_abort_marker(batch):
            self.aborted_producer_ids.discard(batch.producer_id)
            return False
        return bool(self._is_batch_aborted(batch))


_Record = tuple[int, int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def _read(batch: Any) -> Iterator[_Record]:
    """Yield size, offset, timestamp, key, value and headers of each record of a batch.

    Raises:
        CorruptRecordError: the bytes are no records.
    """
    batch._maybe_uncompress()
    buffer, pos = bytes(batch._buffer), batch._pos
    base, first = batch.base_offset, batch.first_timestamp
    appended = batch.max_timestamp if batch.timestamp_type else None
    for _ in range(batch.records_count):
        try:
            size, start = decode_varint(buffer, pos)
            late, pos = decode_varint(buffer, start + 1)  # past the attributes: there are none
            further, pos = decode_varint(buffer, pos)
            key, pos = _bytes(buffer, pos)
            value, pos = _bytes(buffer, pos)
            headers, pos = _headers(buffer, pos)
        except (ValueError, IndexError) as exc:
            raise CorruptRecordError(f"a record's structure is invalid ({exc!r})") from exc
        if pos != start + size or pos > len(buffer):
            raise CorruptRecordError(
                f"a record of {size} bytes takes {pos - start}, and {len(buffer) - start} are left"
            )
        timestamp = first + late if appended is None else appended
        yield size, base + further, timestamp, key, value, headers
    if pos != len(buffer):
        raise CorruptRecordError(f"a batch has {len(buffer) - pos} bytes after its last record")


def _bytes(buffer: bytes, pos: int) -> tuple[bytes | None, int]:
    size, pos = decode_varint(buffer, pos)
    return (None, pos) if size < 0 else (buffer[pos : pos + size], pos + size)


def _headers(buffer: bytes, pos: int) -> tuple[list[tuple[str, bytes | None]], int]:
    """Read headers; where a length is one byte, as nearly always, without a call."""
    headers: list[tuple[str, bytes | None]] = []
    count, pos = decode_varint(buffer, pos)
    if count < 0:
        raise ValueError(f"{count} headers")
    names = _names
    for _ in range(count):
        size = buffer[pos]
        # The lowest bit is the sign, the highest says that another byte follows.
        if size & 0x81:
            size, pos = decode_varint(buffer, pos)
            if size < 0:
                raise ValueError("a header without a name")
        else:
            size >>= 1
            pos += 1
        raw = buffer[pos : pos + size]
        pos += size
        name = names[raw] if raw in names else _learnt(raw)
        size = buffer[pos]
        if size & 0x81:
            size, pos = decode_varint(buffer, pos)
            if size < 0:
                headers.append((name, None))
                continue
        else:
            size >>= 1
            pos += 1
        headers.append((name, buffer[pos : pos + size]))
        pos += size
    return headers, pos


def _learnt(raw: bytes) -> str:
    name = raw.decode()
    if len(_names) < MAX_NAMES:
        _names[raw] = name
    return name
