"""The manifest beside a folder that was moved aside, and the names such folders get."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hnswcheck.errors import StoreUnreadable
from hnswcheck.store import manifest
from hnswcheck.store.manifest import (
    FilePrint,
    Manifest,
    as_text,
    file_prints,
    free_name,
    from_text,
    read_manifest,
)
from hnswcheck.store.watermarks import WatermarkRow

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


WHOLE = Manifest(
    folder=STEM + "1",
    segment=SEGMENT,
    time=NOW.isoformat(),
    why=("DUPLICATE",),
    collection={"id": "c", "name": "ü\udcff", "tenant": "t", "database": "d"},
    watermark=WatermarkRow(1, "integer", 42),
    highest_seq_id=43,
    missing=0,
    strangers=("\udcfe",),
    searchable=2,
    after_repair=3,
    files=(FilePrint("header.bin", 100, 1, "00"),),
    report={"findings": [1.5, {"id": "\udcff"}]},
    log=(5, 43),
    accepted={"suspect": ("a", "\udcff")},
)
BARE = dataclasses.replace(
    WHOLE, why=(), watermark=None, missing=None, strangers=None, report=None, log=None, accepted={}
)


def read(root: Path, content: bytes) -> Manifest:
    path = root / f"{STEM}1.json"
    path.write_bytes(content)
    return read_manifest(path)


def changed(place: tuple[str | int, ...], to: Any) -> bytes:
    document = json.loads(WHOLE.to_json())
    at = document
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = to
    return json.dumps(document).encode()


@pytest.mark.parametrize("whole", [WHOLE, BARE], ids=["whole", "bare"])
def test_a_manifest_comes_back_as_it_was_written(whole: Manifest, tmp_path: Path) -> None:
    assert read(tmp_path, whole.to_json()) == whole
    assert read(tmp_path, whole.to_json()).to_json() == whole.to_json()


@pytest.mark.parametrize(
    ("place", "to", "named"),
    [
        (("folder",), 7, "$.folder"),
        (("folder",), STEM + "2", "$.folder"),
        (("folder",), STEM + "1\n", "$.folder"),
        (("segment",), "x", "$.segment"),
        (("segment",), ["x"], "$.segment"),
        (("time",), 1, "$.time"),
        (("time",), "yesterday\n", "$.time"),
        (("why",), "x", "$.why"),
        (("why",), [1], "$.why[0]"),
        (("collection",), None, "$.collection"),
        (("collection",), {"id": "c"}, "$.collection"),
        (("collection", "name"), 3, "$.collection.name"),
        (("watermark",), {}, "$.watermark"),
        (("watermark", "rowid"), 1.0, "$.watermark.rowid"),
        (("watermark", "rowid"), 1 << 63, "$.watermark"),
        (("watermark", "type"), "evil\n", "$.watermark.type"),
        (("watermark", "type"), "\ud800", "$"),
        (("watermark", "value"), 42.0, "$.watermark"),
        (("highest_seq_id",), 43.0, "$.highest_seq_id"),
        (("highest_seq_id",), None, "$.highest_seq_id"),
        (("missing",), True, "$.missing"),
        (("strangers",), "x", "$.strangers"),
        (("strangers",), [True], "$.strangers[0]"),
        (("searchable",), "2", "$.searchable"),
        (("after_repair",), False, "$.after_repair"),
        (("files",), {}, "$.files"),
        (("files", 0), 1, "$.files[0]"),
        (("files", 0), {"name": "x"}, "$.files[0]"),
        (("files", 0, "size"), 1.0, "$.files[0].size"),
        (("log",), [1], "$.log"),
        (("log",), [1, 2, 3], "$.log"),
        (("log", 1), "2", "$.log[1]"),
        (("accepted",), None, "$.accepted"),
        (("accepted", "suspect"), "a", "$.accepted[...]"),
        (("accepted", "suspect", 0), 1, "$.accepted[...][0]"),
    ],
)
def test_a_wrong_member_is_refused_in_one_line_that_names_its_place(
    place: tuple[str | int, ...], to: Any, named: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnreadable) as refused:
        read(tmp_path, changed(place, to))
    assert f"1.json: invalid manifest at {named}: " in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


OPTIONAL = {"report", "log", "accepted", "tool"}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Manifest)])
def test_no_member_but_the_optional_may_be_missing(name: str, tmp_path: Path) -> None:
    document = json.loads(WHOLE.to_json())
    del document[name]
    content = json.dumps(document).encode()
    if name in OPTIONAL:
        assert read(tmp_path, content).folder == WHOLE.folder
        return
    with pytest.raises(StoreUnreadable, match=name):
        read(tmp_path, content)


@pytest.mark.parametrize("name", ["surprise", "ü", "\udcff\ud800"])
@pytest.mark.parametrize("inside", [(), ("collection",), ("watermark",), ("files", 0)])
def test_a_member_of_a_later_version_is_passed_over(
    name: str, inside: tuple[str | int, ...], tmp_path: Path
) -> None:
    assert read(tmp_path, changed((*inside, name), [{name: 1.5}])) == WHOLE


@pytest.mark.parametrize("member", ["report", "tool"])
@pytest.mark.parametrize("value", [None, 1, "x", [1], {"\udcff": {"\ud800": []}}])
def test_a_report_of_any_form_is_no_reason_to_refuse(
    member: str, value: Any, tmp_path: Path
) -> None:
    found = read(tmp_path, changed((member,), value))
    assert found.files == WHOLE.files


def test_a_manifest_past_the_limit_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = WHOLE.to_json()
    monkeypatch.setattr(manifest, "LARGEST_MANIFEST", len(content))
    assert read(tmp_path, content) == WHOLE
    with pytest.raises(StoreUnreadable, match="no manifest"):
        read(tmp_path, content + b" ")
