"""link_lists.bin: one record per element, read as far as the records make sense."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from hnswcheck.formats import link_lists
from hnswcheck.formats.header import HIGHEST_LEVEL, Header, shaped
from hnswcheck.formats.link_lists import BadRecord, LinkLists, read_link_lists

M = 2
#: Neighbours by level, from level 1, of each element.
RECORDS: Sequence[Sequence[Sequence[int]]] = ([], [[2, 3], [3]], [], [[1]], [])


def record(levels: Sequence[Sequence[int]]) -> bytes:
    lists = b"".join(
        struct.pack("<I", len(links)) + struct.pack(f"<{M}I", *links, *[0] * (M - len(links)))
        for links in levels
    )
    return struct.pack("<I", len(lists)) + lists


SOUND = b"".join(map(record, RECORDS))


def header(count: int = len(RECORDS)) -> Header:
    return shaped(dimension=4, m=M, ef_construction=10, count=count)


def read(data: bytes, path: Path, count: int = len(RECORDS)) -> LinkLists:
    file = path / "link_lists.bin"
    file.write_bytes(data)
    return read_link_lists(file, header(count))


def test_every_list_has_its_owner_level_and_neighbours(tmp_path: Path) -> None:
    found = read(SOUND, tmp_path)
    assert found.bad is None
    assert found.used_bytes == len(SOUND)
    assert found.levels.tolist() == [0, 2, 0, 1, 0]
    assert found.owner.tolist() == [1, 1, 3]
    assert found.level.tolist() == [1, 2, 1]
    assert found.degrees.tolist() == [2, 1, 1]
    assert found.neighbours.tolist() == [[2, 3], [3, 0], [1, 0]]


def test_bytes_behind_the_last_record_are_not_used(tmp_path: Path) -> None:
    found = read(SOUND + b"\xff" * 40, tmp_path)
    assert found.bad is None
    assert found.used_bytes == len(SOUND)


@pytest.mark.parametrize("cut", range(1, len(SOUND)))
def test_a_file_cut_at_any_byte_tells_whose_record_is_the_first_bad_one(
    cut: int, tmp_path: Path
) -> None:
    found = read(SOUND[:cut], tmp_path)
    ends, at = [], 0
    for levels in RECORDS:
        at += len(record(levels))
        ends.append(at)
    whole = sum(end <= cut for end in ends)
    assert found.bad is not None
    assert found.bad.truncated
    assert found.bad.element == whole
    assert found.used_bytes == ([0, *ends])[whole]


def test_an_empty_file_is_truncated_unless_there_are_no_elements(tmp_path: Path) -> None:
    assert read(b"", tmp_path).bad == BadRecord(0, 0, 0, truncated=True)
    assert read(b"", tmp_path, count=0).bad is None


def test_a_length_that_is_no_whole_number_of_lists_is_impossible(tmp_path: Path) -> None:
    size = header().link_list_bytes - 4
    data = record([]) + struct.pack("<I", size) + bytes(64)
    assert read(data, tmp_path).bad == BadRecord(1, 4, size, truncated=False)


@pytest.mark.parametrize("levels", [HIGHEST_LEVEL, HIGHEST_LEVEL + 1])
def test_a_level_that_no_draw_reaches_is_impossible(levels: int, tmp_path: Path) -> None:
    data = record([[1]] * levels) + record([]) * 4
    found = read(data, tmp_path)
    assert (found.bad is None) == (levels == HIGHEST_LEVEL)
    if found.bad is not None:
        assert not found.bad.truncated


def test_only_the_low_half_of_the_word_is_the_degree(tmp_path: Path) -> None:
    data = bytearray(record([[1, 2]]) + record([]) * 4)
    struct.pack_into("<I", data, 4, 0xABCD_0002)
    assert read(bytes(data), tmp_path).degrees.tolist() == [2]


def test_the_first_read_is_enlarged_until_the_records_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_lists, "FIRST_READ", 4)
    monkeypatch.setattr(link_lists, "USUAL_BYTES", 0)
    found = read(SOUND, tmp_path)
    assert found.bad is None
    assert found.levels.tolist() == [0, 2, 0, 1, 0]
