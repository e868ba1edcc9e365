"""A segment's folder: where it may be, and what the head of its id map tells."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import segment_folders, unpack

from hnswcheck.formats.header import pack_header, shaped
from hnswcheck.store.segment import Peek, open_segment, peek_id_map, why_unsafe

SEGMENT = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"


@pytest.mark.parametrize("segment", ["..", "/etc", "", SEGMENT.upper(), f"{SEGMENT}/..", "a" * 36])
def test_a_name_that_is_no_uuid_is_unsafe(segment: str, tmp_path: Path) -> None:
    assert why_unsafe(tmp_path, segment) == ("a uuid", segment)


def test_a_folder_and_nothing_at_all_are_safe(tmp_path: Path) -> None:
    assert why_unsafe(tmp_path, SEGMENT) is None
    (tmp_path / SEGMENT).mkdir()
    assert why_unsafe(tmp_path, SEGMENT) is None


def test_a_link_and_a_file_are_unsafe(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / SEGMENT).symlink_to("elsewhere")
    assert why_unsafe(tmp_path, SEGMENT) == ("a folder", "a symlink")
    (tmp_path / SEGMENT).unlink()
    (tmp_path / SEGMENT).touch()
    assert why_unsafe(tmp_path, SEGMENT) == ("a folder", "not a folder")


def test_only_a_header_that_can_be_true_is_taken(tmp_path: Path) -> None:
    header = shaped(8, 16, 100, 5)
    path = tmp_path / "header.bin"
    path.write_bytes(pack_header(header))
    assert open_segment(tmp_path).header == header
    path.write_bytes(b"\x02" + pack_header(header)[1:])
    opened = open_segment(tmp_path)
    assert opened.header is None
    assert opened.contradictions == ("persistence version is 2, expected 1",)
    path.write_bytes(pack_header(header)[:-1])
    assert open_segment(tmp_path).header is None


def test_the_head_of_an_id_map_tells_the_watermark_of_0_4(tmp_path: Path) -> None:
    (old,) = segment_folders(unpack("0.4.24-churn-l2", tmp_path))
    (new,) = segment_folders(unpack("1.5.9-churn-l2", tmp_path))
    assert (peek_id_map(old).present, peek_id_map(new).present) == (True, True)
    assert peek_id_map(old).max_seq_id is not None
    assert peek_id_map(new).max_seq_id is None


@pytest.mark.parametrize("target", ["index_metadata.pickle", "elsewhere"])
def test_an_id_map_behind_a_link_is_not_read(target: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"\x80\x03}.")
    (tmp_path / "folder" / "index_metadata.pickle").symlink_to(tmp_path / target)
    assert peek_id_map(tmp_path / "folder") == Peek()
    assert peek_id_map(tmp_path / "nowhere") == Peek()
