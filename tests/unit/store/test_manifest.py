"""The manifest beside a folder that was moved aside, and the names such folders get."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hnswcheck.errors import StoreUnreadable
from hnswcheck.store.manifest import (
    as_text,
    file_prints,
    free_name,
    from_text,
    read_manifest,
)

SEGMENT = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STEM = f"{SEGMENT}.quarantined-20260102T030405Z-"


def test_the_first_folder_of_a_second_is_number_one(tmp_path: Path) -> None:
    (tmp_path / f"{SEGMENT}.quarantined-20260102T030404Z-7").mkdir()
    assert free_name(tmp_path, SEGMENT, NOW) == STEM + "1"


@pytest.mark.parametrize("taken", ["3", "3.json", "03"])
def test_a_name_is_above_every_one_of_its_second(taken: str, tmp_path: Path) -> None:
    (tmp_path / f"{STEM}{taken}").touch()
    (tmp_path / f"{STEM}x").touch()
    assert free_name(tmp_path, SEGMENT, NOW) == STEM + "4"


def test_ten_comes_after_nine(tmp_path: Path) -> None:
    for number in range(1, 11):
        (tmp_path / f"{STEM}{number}").touch()
    assert free_name(tmp_path, SEGMENT, NOW) == STEM + "11"


@pytest.mark.parametrize("id", [b"plain", "ü".encode(), b"\xff\x00", b""])
def test_an_id_comes_back_from_json_byte_for_byte(id: bytes) -> None:
    assert from_text(json.loads(json.dumps(as_text(id)))) == id


def test_a_print_is_of_the_whole_file_and_says_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"first")
    (tmp_path / "b").mkdir()
    (tmp_path / "c").write_bytes(b"second")
    told: list[tuple[int, int, str]] = []
    prints = file_prints(tmp_path, lambda *progress: told.append(progress))
    assert [p.name for p in prints] == ["a", "b", "c"]
    assert prints[0].sha256 == hashlib.sha256(b"first").hexdigest()
    assert prints[1].sha256 == ""
    assert told == [(5, 11, "a"), (11, 11, "c")]
    assert dataclasses.astuple(prints[2])[:2] == ("c", 6)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / f"{STEM}1.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreUnreadable):
        read_manifest(path)
