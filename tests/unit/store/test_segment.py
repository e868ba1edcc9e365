"""A segment's folder: where it may be, and what the head of its id map tells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stores import segment_folders, unpack

from hnswcheck.formats.header import pack_header, shaped
from hnswcheck.formats.id_map import decode_id_map
from hnswcheck.store.collection_view import replay_start
from hnswcheck.store.releases import RELEASES
from hnswcheck.store.segment import Peek, links_in, open_segment, peek_id_map, why_unsafe
from hnswcheck.store.watermarks import Watermark

SEGMENT = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"


@pytest.mark.parametrize("segment", ["..", "/etc", "", SEGMENT.upper(), f"{SEGMENT}/..", "a" * 36])
def test_a_name_that_is_no_uuid_is_unsafe(segment: str, tmp_path: Path) -> None:
    assert why_unsafe(tmp_path, segment) == ("a uuid", segment)


def test_a_folder_and_nothing_at_all_are_safe(tmp_path: Path) -> None:
    assert why_unsafe(tmp_path, SEGMENT) is None
    (tmp_path / SEGMENT).mkdir()
    assert why_unsafe(tmp_path, SEGMENT) is None


def test_a_link_to_a_folder_is_safe_and_one_to_anything_else_is_not(tmp_path: Path) -> None:
    link, target = tmp_path / SEGMENT, tmp_path / "elsewhere"
    link.symlink_to("elsewhere")
    nowhere = ("a folder", "a symlink that leads nowhere")
    assert why_unsafe(tmp_path, SEGMENT) == nowhere
    target.symlink_to(SEGMENT)
    assert why_unsafe(tmp_path, SEGMENT) == nowhere
    target.unlink()
    target.symlink_to("/proc/self")
    assert why_unsafe(tmp_path, SEGMENT) == nowhere
    target.unlink()
    target.symlink_to("farther")
    (tmp_path / "farther").touch()
    assert why_unsafe(tmp_path, SEGMENT) == ("a folder", "a symlink to what is not a folder")
    (tmp_path / "farther").unlink()
    (tmp_path / "farther").mkdir()
    assert why_unsafe(tmp_path, SEGMENT) is None


def test_a_file_in_the_place_of_a_folder_is_unsafe(tmp_path: Path) -> None:
    (tmp_path / SEGMENT).touch()
    assert why_unsafe(tmp_path, SEGMENT) == ("a folder", "not a folder")


def test_the_links_of_a_segment_are_those_of_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / SEGMENT).symlink_to("elsewhere")
    (tmp_path / "elsewhere" / "note.txt").symlink_to("nowhere")
    (tmp_path / "elsewhere" / "length.bin").symlink_to("note.txt")
    assert links_in(tmp_path / SEGMENT) == (SEGMENT, f"{SEGMENT}/length.bin")
    assert open_segment(tmp_path / SEGMENT).irregular == ["length.bin"]
    (tmp_path / "elsewhere" / "nowhere").touch()
    assert not open_segment(tmp_path / SEGMENT).irregular
    assert links_in(tmp_path / "elsewhere") == ("elsewhere/length.bin",)


@pytest.mark.parametrize("at", ["a pipe", "a pipe behind a link", "proc"])
def test_what_may_never_end_is_not_opened(at: str, tmp_path: Path) -> None:
    place = tmp_path / "index_metadata.pickle"
    match at:
        case "a pipe":
            os.mkfifo(place)
        case "a pipe behind a link":
            os.mkfifo(tmp_path / "pipe")
            place.symlink_to("pipe")
        case "proc":
            place.symlink_to("/proc/self/maps")
    assert open_segment(tmp_path).irregular == ["index_metadata.pickle"]
    assert peek_id_map(tmp_path) == Peek()


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


def test_an_id_map_behind_a_link_is_read(tmp_path: Path) -> None:
    (folder,) = segment_folders(unpack("1.5.9-churn-l2", tmp_path))
    found = peek_id_map(folder)
    (folder / "index_metadata.pickle").rename(tmp_path / "elsewhere")
    (folder / "index_metadata.pickle").symlink_to(tmp_path / "elsewhere")
    assert found.present
    assert peek_id_map(folder) == found


@pytest.mark.parametrize("target", ["index_metadata.pickle", "nowhere", "/dev/zero"])
def test_an_id_map_behind_a_link_to_no_file_is_not(target: str, tmp_path: Path) -> None:
    (tmp_path / "index_metadata.pickle").symlink_to(target)
    assert peek_id_map(tmp_path) == Peek()
    assert peek_id_map(tmp_path / "nowhere") == Peek()


def test_the_head_of_an_id_map_tells_its_checkpoint(tmp_path: Path) -> None:
    (new,) = segment_folders(unpack("1.5.9-damaged-next-checkpoint", tmp_path))
    (old,) = segment_folders(unpack("1.5.9-churn-l2", tmp_path))
    assert peek_id_map(new).checkpoint
    assert decode_id_map((new / "index_metadata.pickle").read_bytes()).dimensionality == 8
    assert peek_id_map(old).checkpoint is None


@pytest.mark.parametrize(
    ("peek", "start"),
    [
        (Peek(True, True, checkpoint=7), 7),
        (Peek(True, True, checkpoint=3), 3),
        (Peek(True, True), 5),
        (Peek(True, False, checkpoint=7), 0),
        (Peek(), 0),
    ],
)
def test_replay_begins_at_the_checkpoint_of_an_index_that_is_there(peek: Peek, start: int) -> None:
    assert replay_start(peek, Watermark(5, "integer"), RELEASES["1.5"], 9) == start
    without = {5: 0}.get(start, start)
    assert replay_start(peek, None, RELEASES["1.5"], 9) == without
