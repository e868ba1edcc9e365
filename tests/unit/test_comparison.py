"""Two reports compared: each change is named once, and worse means what the help page says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hnswcheck
from hnswcheck.cli.app import run
from hnswcheck.kinds import STATUSES, FindingId, Status
from hnswcheck.report import (
    CollectionInfo,
    Finding,
    Ledger,
    Level,
    Recoverable,
    Report,
    SegmentReport,
    StoreReport,
    Verdict,
    finding,
)

VERDICTS: tuple[Verdict, ...] = ("consistent", "undecided", "damaged")


def segment(*findings: Finding, status: Status = "consistent", name: str = "docs") -> SegmentReport:
    return SegmentReport(
        collection=CollectionInfo(
            id=f"id of {name}", name=name, tenant="t", database="d", dimension=8, space="l2"
        ),
        vector_segment="v",
        metadata_segment="m",
        status=status,
        ledger=Ledger(),
        recoverable=Recoverable(),
        findings=findings,
    )


def report(
    *segments: SegmentReport,
    findings: tuple[Finding, ...] = (),
    verdict: Verdict = "consistent",
    level: Level = Level.STANDARD,
    path: str = "a/store",
) -> Report:
    store = StoreReport(
        path=path,
        verdict=verdict,
        level=level,
        complete=True,
        elapsed_seconds=0.1,
        chroma=None,
        findings=findings,
        segments=segments,
    )
    return Report((store,))


def test_a_report_and_itself_are_the_same_whatever_it_took() -> None:
    one = report(segment(finding("lag", 3)), findings=(finding("sqlite-damaged"),))
    later = Report((replace(one.stores[0], elapsed_seconds=9.0),))
    assert hnswcheck.diff(one, later).stores == ()
    assert not hnswcheck.diff(one, later).is_worse


@pytest.mark.parametrize(
    ("before", "after", "change", "worse"),
    [
        (None, finding("records-missing", 1), "appeared", True),
        (None, finding("norms-truncated", 1), "appeared", True),
        (None, finding("lag", 1), "appeared", False),
        (finding("records-missing", 1), None, "gone", False),
        (finding("records-missing", 1), finding("records-missing", 2), "changed", True),
        (finding("records-missing", 2), finding("records-missing", 1), "changed", False),
        (finding("lag", 1), finding("lag", 2), "changed", False),
        (
            finding("records-missing", 1, ["a"]),
            finding("records-missing", 1, ["b"]),
            "changed",
            False,
        ),
        (
            replace(finding("records-missing", 2), severity="info"),
            finding("records-missing", 1),
            "changed",
            True,
        ),
    ],
)
def test_a_finding_is_worse_if_it_is_new_larger_or_more_severe(
    before: Finding | None, after: Finding | None, change: str, worse: bool
) -> None:
    old, new = (() if one is None else (one,) for one in (before, after))
    for one, other in (
        (report(findings=old), report(findings=new)),
        (report(segment(*old)), report(segment(*new))),
    ):
        found = hnswcheck.diff(one, other)
        (store,) = found.stores
        (changed,) = store.findings or store.collections[0].findings
        assert (changed.change, changed.is_worse) == (change, worse)
        assert (store.is_worse, found.is_worse) == (worse, worse)


def test_findings_of_one_id_are_counted_together() -> None:
    ids: tuple[FindingId, ...] = ("file-truncated", "file-truncated")
    old = report(segment(*(finding(id, 1, [f"{n}"]) for n, id in enumerate(ids))))
    new = report(segment(finding("file-truncated", 2, ["0", "1"])))
    assert hnswcheck.diff(old, new).stores == ()


def test_a_status_falls_from_sound_to_undecided_to_damaged() -> None:
    sound, damaged = {"empty", "consistent", "lagging"}, ["diverged", "corrupt"]
    for before in STATUSES:
        for after in STATUSES:
            found = hnswcheck.diff(report(segment(status=before)), report(segment(status=after)))
            worse = (
                (before in sound and after not in sound)
                or (before == "undecided" and after in damaged)
                or (before, after) == ("diverged", "corrupt")
            )
            assert found.is_worse == worse, (before, after)
            assert len(found.stores) == (before != after)


def test_a_verdict_falls_from_consistent_to_undecided_to_damaged() -> None:
    for number, before in enumerate(VERDICTS):
        for other, after in enumerate(VERDICTS):
            found = hnswcheck.diff(report(verdict=before), report(verdict=after))
            assert found.is_worse == (other > number), (before, after)


def test_stores_and_collections_that_come_or_go_are_no_loss_unless_they_are_damaged() -> None:
    one, two = segment(name="one"), segment(name="two")
    found = hnswcheck.diff(report(one), report(two))
    assert [(c.collection.name, c.change) for c in found.stores[0].collections] == [
        ("two", "appeared"),
        ("one", "gone"),
    ]
    assert not found.is_worse
    moved = hnswcheck.diff(report(one, path="a"), report(one, path="b"))
    assert [(s.path, s.change) for s in moved.stores] == [("b", "appeared"), ("a", "gone")]
    assert not moved.is_worse
    broken = segment(finding("header-invalid"), status="corrupt", name="two")
    assert hnswcheck.diff(report(one), report(one, broken)).is_worse
    assert not hnswcheck.diff(report(one, broken), report(one)).is_worse


def test_a_deeper_reading_is_named() -> None:
    (store,) = hnswcheck.diff(report(level=Level.PROBE), report(level=Level.DEEP)).stores
    assert (store.levels, store.is_worse) == (("probe", "deep"), False)


# --- The command ---------------------------------------------------------------------------------

OLD = report(segment(finding("lag", 3), finding("records-missing", 1, ["a"])))
NEW = report(
    segment(finding("records-missing", 2000, ["a", "\x1b[1m"]), status="diverged"),
    verdict="damaged",
    level=Level.DEEP,
)


def told(
    capsys: pytest.CaptureFixture[str], folder: Path, old: str, new: str, *options: str
) -> tuple[int, str, str]:
    paths = [folder / "old.json", folder / "new.json"]
    for path, text in zip(paths, (old, new), strict=True):
        path.write_text(text, "utf-8")
    code = run(["diff", *map(str, paths), *options])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_text_names_every_change(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = told(capsys, tmp_path, OLD.to_json(), NEW.to_json())
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        "a/store: consistent -> damaged",
        "  level: standard -> deep; a deeper audit also finds what is old",
        "  collection t/d/docs: consistent -> diverged",
        "    error  records-missing  1 -> 2,000  worse",
        "      + \\x1b[1m",
        "    info  lag  gone, was 3",
        "something got worse",
    ]
    code, out, _ = told(capsys, tmp_path, NEW.to_json(), OLD.to_json())
    assert (code, out.splitlines()[-1]) == (0, "nothing got worse")
    assert told(capsys, tmp_path, OLD.to_json(), OLD.to_json()) == (0, "nothing changed\n", "")


def test_the_json_says_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = told(capsys, tmp_path, OLD.to_json(), NEW.to_json(), "--format", "json")
    assert (code, out.isascii()) == (1, True)
    document: dict[str, Any] = json.loads(out)
    assert document == hnswcheck.diff(OLD, NEW).to_dict() | {"stores": document["stores"]}
    (store,) = document["stores"]
    assert (document["schema"], document["worse"]) == ("hnswcheck.diff/1", True)
    assert store["verdict"] == {"before": "consistent", "after": "damaged"}
    (collection,) = store["collections"]
    assert collection["status"] == {"before": "consistent", "after": "diverged"}
    missing, lag = collection["findings"]
    assert (missing["before"]["count"], missing["after"]["count"]) == (1, 2000)
    assert (missing["worse"], lag["worse"], lag["change"]) == (True, False, "gone")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "old.json: invalid report: no JSON"),
        ("[1]", "old.json: invalid report: it names no schema"),
        (OLD.to_json().replace('"t"', "1"), "old.json: invalid report at $.stores[0].segments[0]"),
    ],
)
def test_what_is_no_report_is_wrong_use(
    text: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = told(capsys, tmp_path, text, NEW.to_json())
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_file_that_cannot_be_read_is_wrong_use(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        assert run(["diff", str(path), str(path)]) == 2
        shown = capsys.readouterr()
        assert (shown.out, shown.err.count("\n")) == ("", 1)
        assert str(path) in shown.err


def test_a_path_that_was_audited_twice_hides_none_of_both() -> None:
    sound, damaged = report(), report(verdict="damaged")
    old = Report(sound.stores * 2)
    for stores in (damaged.stores + sound.stores, sound.stores + damaged.stores):
        found = hnswcheck.diff(old, Report(stores))
        assert [(one.before, one.after) for one in found.stores] == [("consistent", "damaged")]
        assert found.is_worse
    (gone,) = hnswcheck.diff(old, sound).stores
    assert (gone.change, gone.is_worse) == ("gone", False)


def test_a_collection_is_the_same_by_id_whatever_its_name() -> None:
    sick = segment(finding("records-missing", 1), status="diverged")
    renamed = replace(sick, collection=replace(sick.collection, name="papers"))
    assert hnswcheck.diff(report(sick), report(renamed)).stores == ()
