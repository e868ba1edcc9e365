"""``hnswcheck diff``: what changed between two audits of real stores, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import SOUND, segment_folders, unpack

import hnswcheck
from hnswcheck.cli import app

Compare = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str]) -> Compare:
    def run(*words: str | Path) -> tuple[int, str, str]:
        code = app.run(["diff", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sound store, and the same store once a file of it is gone."""
    room = tmp_path_factory.mktemp("reports")
    store = unpack(SOUND, room)
    sound, damaged = room / "sound.json", room / "damaged.json"
    sound.write_text(hnswcheck.audit(store).to_json())
    (segment_folders(store)[0] / "data_level0.bin").unlink()
    damaged.write_text(hnswcheck.audit(store).to_json())
    return sound, damaged


def test_new_damage_is_worse_and_named(compare: Compare, reports: tuple[Path, Path]) -> None:
    code, out, err = compare(*reports)
    assert (code, err) == (1, "")
    assert ": consistent -> damaged" in out
    assert "    error  file-missing  new, 1  worse" in out
    assert "data_level0.bin" in out
    assert out.endswith("something got worse\n")


def test_damage_that_went_is_no_worse(compare: Compare, reports: tuple[Path, Path]) -> None:
    code, out, _ = compare(*reversed(reports))
    assert code == 0
    assert ": damaged -> consistent" in out
    assert "gone, was 1" in out
    assert out.endswith("nothing got worse\n")


@pytest.mark.parametrize("which", [0, 1])
def test_a_report_and_itself_differ_in_nothing(
    which: int, compare: Compare, reports: tuple[Path, Path]
) -> None:
    assert compare(reports[which], reports[which]) == (0, "nothing changed\n", "")


def test_json_says_the_same(compare: Compare, reports: tuple[Path, Path]) -> None:
    code, out, _ = compare(*reports, "--format", "json")
    assert code == 1
    assert out.isascii()
    old, new = (hnswcheck.Report.from_json(path.read_bytes()) for path in reports)
    assert json.loads(out) == json.loads(hnswcheck.diff(old, new).to_json())
    assert json.loads(out)["worse"] is True
    assert compare(*reversed(reports), "--format", "json")[0] == 0


def test_another_level_is_said(compare: Compare, tmp_path: Path) -> None:
    store = unpack(SOUND, tmp_path)
    (tmp_path / "standard.json").write_text(hnswcheck.audit(store).to_json())
    (segment_folders(store)[0] / "data_level0.bin").unlink()
    (tmp_path / "deep.json").write_text(hnswcheck.audit(store, "deep").to_json())
    _, out, _ = compare(tmp_path / "standard.json", tmp_path / "deep.json")
    assert "level: standard -> deep" in out


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema": "hnswcheck.report/2"}',
        b'{"schema": "hnswcheck.report/1", "stores": [{}]}',
        b'{"schema": "hnswcheck.diff/1", "stores": []}',
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_is_no_report_is_one_line_and_exit_code_2(
    content: bytes, first: bool, compare: Compare, reports: tuple[Path, Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    code, out, err = compare(*((bad, reports[0]) if first else (reports[0], bad)))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert str(bad) in err


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_file_that_cannot_be_read_is_wrong_use(
    make: Callable[[Path], None], compare: Compare, reports: tuple[Path, Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.json"
    make(bad)
    code, out, err = compare(reports[0], bad)
    assert (code, out) == (2, "")
    assert err.startswith(f"hnswcheck: {bad}: ")
    assert len(err.splitlines()) == 1


def test_hostile_text_is_harmless_on_a_terminal(
    compare: Compare, reports: tuple[Path, Path], tmp_path: Path
) -> None:
    document = json.loads(reports[1].read_text())
    store = document["stores"][0]
    for segment in store["segments"]:
        segment["collection"]["name"] = "\x1b[2J\u202e" + "x" * 400
        for found in segment["findings"]:
            found["title"], found["sample"] = "\x1b[31m\r\nhello", ["\x07\n", "\ud800"]
    hostile = tmp_path / "hostile.json"
    hostile.write_text(json.dumps(document))
    code, out, _ = compare(reports[0], hostile)
    assert code == 1
    assert all(c.isprintable() or c == "\n" for c in out)
    assert "\\x1b[2J\\u202exxx" in out
    assert "+ \\x07\\n, \\ud800\n" in out


@pytest.mark.parametrize(
    ("member", "value", "place"),
    [
        ("id", "file-missing\n", "id"),
        ("count", 1 << 63, "count"),
    ],
)
def test_a_finding_that_no_audit_makes_is_refused_with_its_place(
    member: str,
    value: object,
    place: str,
    compare: Compare,
    reports: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    sound, damaged = reports
    document = json.loads(damaged.read_text())
    found = document["stores"][0]["segments"][0]["findings"][0]
    found[member] = value
    (edited := tmp_path / "edited.json").write_text(json.dumps(document))
    code, out, err = compare(sound, edited)
    assert (code, out) == (2, "")
    assert f"$.stores[0].segments[0].findings[0].{place}: " in err
    found |= {"id": "file-missing", "count": (1 << 63) - 1}
    edited.write_text(json.dumps(document))
    assert compare(sound, edited)[0] == 1


def test_many_ids_are_wrapped(compare: Compare, reports: tuple[Path, Path], tmp_path: Path) -> None:
    sound, damaged = reports
    document = json.loads(damaged.read_text())
    ids = [f"record-{n}" for n in range(50)]
    document["stores"][0]["segments"][0]["findings"][0]["sample"] = ids
    (edited := tmp_path / "edited.json").write_text(json.dumps(document))
    _, out, _ = compare(sound, edited)
    assert ", ".join(ids) in " ".join(out.split())
    assert all(len(line) <= 80 for line in out.splitlines() if str(tmp_path.parent) not in line)
