"""header.bin: what parses, and what no index can have."""

from __future__ import annotations

import dataclasses
import math
import struct
from pathlib import Path

import pytest
from stores import segment_folders, unpack

from hnswcheck.errors import FormatError
from hnswcheck.formats.header import (
    HIGHEST_LEVEL,
    LAYOUT,
    NO_ENTRY_POINT,
    Header,
    pack_header,
    parse_header,
    shaped,
)


def test_a_header_has_a_hundred_bytes() -> None:
    assert LAYOUT.size == 100


@pytest.mark.parametrize("name", ["0.4.24-churn-cosine", "0.6.3-many-levels", "1.5.9-churn-l2"])
def test_a_header_that_chroma_wrote_is_sound_and_is_written_back_the_same(
    name: str, tmp_path: Path
) -> None:
    (folder,) = segment_folders(unpack(name, tmp_path))
    data = (folder / "header.bin").read_bytes()
    header = parse_header(data)
    assert header.contradictions() == []
    assert header.dimension == 12
    assert 0 < header.count <= header.capacity
    assert pack_header(header) == data[: LAYOUT.size]


def test_a_header_that_is_a_byte_short_is_refused() -> None:
    data = pack_header(shaped(8, 16, 100, 5))
    assert parse_header(data + b"more").count == 5
    with pytest.raises(FormatError, match="99 of 100 bytes"):
        parse_header(data[:-1])


def test_the_offsets_follow_from_the_dimension_and_m() -> None:
    header = shaped(dimension=8, m=6, ef_construction=100, count=3)
    assert header.offset_data == 4 + 12 * 4
    assert header.label_offset == header.offset_data + 8 * 4
    assert header.stride == header.label_offset + 8
    assert header.link_list_bytes == 4 + 6 * 4
    assert header.enterpoint_node == NO_ENTRY_POINT
    assert header.contradictions() == []


@pytest.mark.parametrize("m", [1, 2, 16, 0xFFFF // 2])
def test_any_m_that_a_degree_can_count_is_sound(m: int) -> None:
    assert shaped(4, m, max(m, 100), 0).contradictions() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"persistence_version": 2}, "persistence version is 2, expected 1"),
        ({"offset_level0": 8}, "offsetLevel0 is 8"),
        ({"max_m": 15}, "maxM is 15, expected 16"),
        ({"max_m0": 16}, "maxM0 is 16, expected 32"),
        ({"offset_data": 128}, "offsetData is 128, expected 132"),
        ({"size_data_per_element": 200}, "size_data_per_element is 200"),
        ({"label_offset": 132}, "vectors of 0 bytes"),
        ({"label_offset": 134}, "vectors of 2 bytes"),
        ({"m": 0}, "M is 0"),
        ({"m": 0x8000}, "M is 32768"),
        ({"mult": math.nan}, "mult is nan"),
        ({"ef_construction": 15}, "ef_construction is 15, below M"),
    ],
)
def test_each_contradiction_is_said(change: dict[str, float], said: str) -> None:
    header = dataclasses.replace(shaped(8, 16, 100, 5), **change)  # type: ignore[arg-type]
    assert any(text.startswith(said) for text in header.contradictions())


def test_mult_may_differ_in_its_last_bits_only() -> None:
    sound = shaped(8, 16, 100, 5)
    near = dataclasses.replace(sound, mult=math.nextafter(sound.mult, 1))
    off = dataclasses.replace(sound, mult=sound.mult * (1 + 1e-9))
    assert near.contradictions() == []
    assert len(off.contradictions()) == 1


def test_no_draw_of_hnswlib_passes_the_highest_level() -> None:
    smallest = 2.0**-53
    assert int(-math.log(smallest) / math.log(2)) <= HIGHEST_LEVEL


def test_the_numbers_are_little_endian() -> None:
    data = pack_header(dataclasses.replace(shaped(8, 16, 100, 0x0102), maxlevel=-1))
    assert struct.unpack_from("<i", data)[0] == 1
    assert data[20:28] == b"\x02\x01" + bytes(6)
    assert isinstance(parse_header(data), Header)
    assert parse_header(data).maxlevel == -1
