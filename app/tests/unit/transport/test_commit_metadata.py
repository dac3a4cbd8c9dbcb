"""What lies beside a committed offset: nothing is lost in it, and nothing foreign is believed."""

from __future__ import annotations

from random import Random
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kombu_kafka.consuming.commit_metadata import (
    LIMIT,
    MAX_OWNER,
    PAUSE_AT,
    CommitMetadata,
    decode,
    digest,
    encode,
    fill,
)

#: Lengths of what is not done and what is done, in turn.
LENGTHS = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=80)
OFFSETS = st.integers(0, 2**62)


def _ranges(watermark: int, lengths: list[tuple[int, int]]) -> list[range]:
    ranges, last = [], watermark
    for gap, length in lengths:
        ranges.append(range(last + gap, last + gap + length))
        last += gap + length
    return ranges


def _offsets(ranges: tuple[range, ...] | list[range]) -> set[int]:
    return {offset for done in ranges for offset in done}


@given(watermark=OFFSETS, lengths=LENGTHS, owner=st.text(max_size=60), counts=st.data())
def test_what_is_written_is_read(
    watermark: int, lengths: list[tuple[int, int]], owner: str, counts: st.DataObject
) -> None:
    done = _ranges(watermark, lengths)
    attempts = counts.draw(
        st.dictionaries(st.integers(watermark, watermark + 10**6), st.integers(1, 9), max_size=20)
    )
    text = encode(owner, watermark, done, topic=digest("id"), journal="j1", attempts=attempts)
    assert len(text) <= LIMIT
    assert text.isascii()
    found = decode(text)
    assert found is not None
    whole = owner.encode(errors="replace").decode()
    assert whole.startswith(found.owner)
    assert found.owner == whole or len(quote(whole, safe="@.:/")) > MAX_OWNER
    assert found == CommitMetadata(
        found.owner,
        watermark,
        tuple(done),
        digest("id"),
        "j1",
        attempts,
    )


@given(seed=st.integers(), longest=st.sampled_from([1, 2, 9, 90, 900]))
def test_what_does_not_fit_is_left_out_from_the_top(seed: int, longest: int) -> None:
    random = Random(seed)
    lengths = [(random.randint(1, longest), random.randint(1, longest)) for _ in range(3000)]
    done = _ranges(7, lengths)
    text = encode("worker-0", 7, done)
    assert len(text) <= LIMIT
    found = decode(text)
    assert found is not None
    told, known = _offsets(found.done), _offsets(done)
    assert told <= known
    highest = max(told)
    assert {offset for offset in known if offset <= highest} == told
    if fill(7, done) > 1:
        assert told != known
        assert len(text) > LIMIT - 20, "as much as fits"


def test_the_shorter_of_runs_and_bits() -> None:
    """A hundred thousand above one take no room; every other one takes a bit."""
    assert len(encode("w", 0, [range(1, 100_001)])) < 60
    every_other = [range(n, n + 1) for n in range(1, 20_001, 2)]
    text = encode("w", 0, every_other)
    assert len(text) < 20_000 / 8 * 5 / 4 + 60
    found = decode(text)
    assert found is not None
    assert found.done == tuple(every_other)
    assert PAUSE_AT < fill(0, every_other) < 1


@given(watermark=OFFSETS, lengths=LENGTHS)
def test_fill_is_the_room_that_it_takes(watermark: int, lengths: list[tuple[int, int]]) -> None:
    done = _ranges(watermark, lengths)
    taken = len(encode("", watermark, done)) - len(encode("", watermark))
    assert abs(fill(watermark, done) * LIMIT - taken) <= 5


@given(st.text(max_size=80))
def test_foreign_text_says_nothing(text: str) -> None:
    assert decode(text) is None


@pytest.mark.parametrize(
    "text", [None, "", "v1", "v1;;", "v2;0;o=;w=1;i=;j=;a=;r=", "kafka-streams"]
)
def test_no_text_says_nothing(text: str | None) -> None:
    assert decode(text) is None


@given(
    lengths=LENGTHS, position=st.integers(0, LIMIT), byte=st.characters(max_codepoint=126), cut=...
)
def test_damaged_text_says_nothing(
    lengths: list[tuple[int, int]], position: int, byte: str, cut: bool
) -> None:
    text = encode("worker-0@host", 1000, _ranges(1000, lengths), attempts={1000: 2})
    position %= len(text)
    damaged = text[:position] + ("" if cut else byte + text[position + 1 :])
    assert (decode(damaged) is None) == (damaged != text)


def test_a_long_owner_is_cut_and_its_signs_do_not_disturb() -> None:
    for owner in ("a;b=c;w=9,%2", "ü" * 500, "\ud800"):
        found = decode(encode(owner, 5, [range(7, 9)]))
        assert found is not None
        assert found.watermark == 5
        assert found.owner
        assert owner.startswith(found.owner) or owner == "\ud800"


@pytest.mark.parametrize(
    "done", [[range(3, 9)], [range(9, 9)], [range(9, 12), range(11, 13)], [range(9, 12, 2)]]
)
def test_ranges_that_are_none_are_refused(done: list[range]) -> None:
    with pytest.raises(ValueError, match="no range"):
        encode("w", 5, done)
