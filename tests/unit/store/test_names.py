"""Names in a persist directory: whose they are, and what only looks like one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hnswcheck.store.names import DROPPED, OURS, QUARANTINED, REBUILT, UUID, quarantined_folders

SEGMENT = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"


@pytest.mark.parametrize(
    "near",
    [
        SEGMENT.upper(),
        SEGMENT[:-1],
        SEGMENT + "0",
        SEGMENT.replace("-", ""),
        SEGMENT.replace("a", "g"),
        f"../{SEGMENT}",
        f"{SEGMENT}\n",
        "",
    ],
)
def test_a_segment_is_a_whole_uuid_in_small_letters(near: str) -> None:
    assert UUID.fullmatch(SEGMENT)
    assert not UUID.fullmatch(near)


@pytest.mark.parametrize(
    "name",
    [
        f"{SEGMENT}.drift-20260101-000000",
        f"{SEGMENT}.corrupt-1",
        f"{SEGMENT}.quarantined-20260101T000000Z-1",
        f"{SEGMENT}.quarantine",
    ],
)
def test_what_any_tool_moved_aside_is_known_by_its_segment(name: str) -> None:
    found = QUARANTINED.match(name)
    assert found is not None
    assert found.group(1) == SEGMENT


@pytest.mark.parametrize(
    "near", [SEGMENT, f"{SEGMENT}.bak", f"{SEGMENT}-drift-1", f"x{SEGMENT}.drift-1"]
)
def test_another_name_is_nothing_that_was_moved_aside(near: str) -> None:
    assert not QUARANTINED.match(near)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (OURS, f"{SEGMENT}.quarantined-20260101T000000Z-12"),
        (REBUILT, f"{SEGMENT}.rebuilt-20260101T000000Z-12"),
        (DROPPED, f"{SEGMENT}.dropped-20260101T000000Z-12.jsonl"),
    ],
)
def test_our_own_names_have_a_time_and_a_number(pattern: re.Pattern[str], name: str) -> None:
    assert pattern.fullmatch(name)
    for near in (
        name.replace("Z", ""),
        name.replace("T", "-"),
        name + "x",
        name.replace("-12", "-"),
    ):
        assert not pattern.fullmatch(near)


def test_folders_that_were_moved_aside_come_newest_first(tmp_path: Path) -> None:
    other = SEGMENT.replace("0a", "ff")
    names = [f"{SEGMENT}.quarantined-2026010{n}T000000Z-1" for n in (1, 3, 2)]
    for name in [*names, f"{other}.drift-1", SEGMENT, f"{SEGMENT}.bak"]:
        (tmp_path / name).mkdir()
    (tmp_path / f"{SEGMENT}.corrupt-file").touch()
    assert quarantined_folders(tmp_path) == {
        SEGMENT: [tmp_path / name for name in sorted(names, reverse=True)],
        other: [tmp_path / f"{other}.drift-1"],
    }


def test_a_directory_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert quarantined_folders(tmp_path / "nowhere") == {}
