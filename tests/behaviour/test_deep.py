"""Each check of level deep is what finds its findings: without it, a store that has them passes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from histories import adds, keep_log, play
from stores import rest, segment_folders, unpack

import hnswcheck
from hnswcheck.auditing import deep
from hnswcheck.checks.vectors import VectorFaults
from hnswcheck.replay.vectors import rows_in_index
from hnswcheck.store.releases import RELEASES
from hnswcheck.store.wal import Operation, WalRow

AUDIT = "hnswcheck.auditing.runner"


def nothing(*_: object) -> Iterator[object]:
    return iter(())


#: Where each check is called, what finds nothing in its place, and a store of which it tells.
CHECKS = {
    "check_reach": ("elements-unreachable", "1.5.9-many-levels"),
    "check_with_second_reader": ("searches-miss", "1.5.9-many-levels"),
    "_check_log": ("vector-differs-from-wal", "1.5.9-damaged-vector-not-logged"),
}


def found(store: Path) -> set[str]:
    return {one.id for one in hnswcheck.audit(store, "deep").findings}


@pytest.mark.parametrize("check", CHECKS)
def test_without_a_check_its_finding_is_not_made(
    check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding, name = CHECKS[check]
    store = unpack(name, tmp_path)
    assert finding in found(store)
    monkeypatch.setattr(deep, check, nothing)
    assert finding not in found(store)


def test_chromas_fork_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """chromadb 0.x installs it under the name of hnswlib; it saves and loads other files."""
    (tmp_path / "hnswlib.py").write_text("class Index:\n    def persist_dirty(self): ...\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = hnswcheck.audit(unpack("0.6.3-exactly-flushed", tmp_path), "deep")
    assert [one.id for one in report.findings] == ["second-reader-not-asked"]


def test_a_search_that_meets_deleted_elements_only_misses_and_is_no_disagreement(
    tmp_path: Path,
) -> None:
    """hnswlib raises where it finds fewer neighbours than it was asked for."""
    store = unpack("1.0.20-single-element-left", tmp_path)
    with (segment_folders(store)[0] / "data_level0.bin").open("r+b") as level0:
        level0.write(bytes(2))  # the degree of the entry point, which is deleted
    kinds = found(store)
    assert "searches-miss" in kinds
    assert "second-reader-disagrees" not in kinds


@pytest.mark.usefixtures("chroma")
def test_lengths_whose_squares_float32_cannot_hold_are_no_damage(tmp_path: Path) -> None:
    """Chroma itself stores zeros, or something shorter."""
    store = tmp_path / "store"
    scales = ["1e-37", "1e-30", "1e-23", "1e-22", "1e-21", "1e-19", "1e18", "1e19", "1e22", "1e37"]
    play(store, *adds(10), space="cosine")
    keep_log(store)
    play(store, ("add", scales, [f"x*{scale}" for scale in scales]), space="cosine")
    assert found(rest(store)) <= {"searches-miss"}


@pytest.mark.usefixtures("chroma")
def test_the_last_row_of_a_purged_log_knows_the_folder_of_another_collection(
    tmp_path: Path,
) -> None:
    """The same ids under two models: labels, links and id map all agree."""
    store = tmp_path / "store"
    for collection in ("docs", "other"):
        steps = [("add", ids, [f"{id}-{collection}" for id in ids]) for _, ids, _ in adds(40)]
        play(store, *steps, collection=collection)
    rest(store)
    assert found(store) == set()
    one, two = segment_folders(store)
    one.rename(tmp_path / "one")
    two.rename(one)
    (tmp_path / "one").rename(two)
    rest(store)
    report = hnswcheck.audit(store, "deep")
    assert [(one.id, one.sample) for one in report.findings] == [
        ("vector-differs-from-wal", ("r39",))
    ] * 2


@pytest.mark.usefixtures("chroma")
def test_an_add_that_chroma_ignored_is_not_expected_in_the_index(tmp_path: Path) -> None:
    """It is the last row of the log, and its record has another vector."""
    store = tmp_path / "store"
    play(store, *adds(39), ("add", ["r7"], ["r7-ignored"]))
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        rows = database.execute("SELECT id, operation FROM embeddings_queue").fetchall()
    assert rows == [("r7", 0)]
    rest(store)
    assert found(store) == set()


def test_an_add_that_the_records_ignore_may_be_what_an_index_of_0_x_has() -> None:
    """0.4.24 served the last vector of this history: its batch lost the one before."""
    steps: tuple[Operation, ...] = ("add", "delete", "add", "add")
    rows = [
        WalRow(seq_id=seq_id, operation=step, id=b"r", vector_bytes=32)
        for seq_id, step in enumerate(steps, 1)
    ]
    assert rows_in_index(rows, 4, True, {}, RELEASES["1.5"]) == {b"r": 3}
    assert rows_in_index(rows, 4, True, {}, RELEASES["0.4"]) == {}
    assert rows_in_index(rows[:3], 4, True, {}, RELEASES["0.4"]) == {b"r": 3}


@pytest.mark.parametrize(
    ("finding", "name"),
    [
        ("vector-not-finite", "1.5.9-damaged-vector-no-number"),
        ("vector-not-normalised", "1.5.9-damaged-vector-too-long"),
        ("norm-invalid", "1.5.9-damaged-norms-zeroed"),
    ],
)
def test_without_a_look_at_the_vectors_nothing_is_said_of_them(
    finding: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = unpack(name, tmp_path)
    assert finding in found(store)
    monkeypatch.setattr(VectorFaults, "_add", lambda *_: None)
    assert finding not in found(store)


@pytest.mark.parametrize(
    ("check", "name"),
    [
        ("PRAGMA integrity_check", "1.5.9-damaged-sqlite-other-index-garbage"),
        ("VALUES ('integrity-check')", "0.6.3-damaged-search-index-behind"),
    ],
)
def test_each_check_of_sqlite_finds_what_the_other_does_not(
    check: str, name: str, tmp_path: Path
) -> None:
    (store,) = hnswcheck.audit(unpack(name, tmp_path), "deep").stores
    assert [one.id for one in store.findings] == ["sqlite-damaged"]
    assert store.verdict == "damaged"
    says = " ".join(store.findings[0].sample)
    assert ("embedding_fulltext_search" in says) == (check != "PRAGMA integrity_check")
