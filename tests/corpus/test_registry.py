"""Registry, design and corpus name the same findings."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from stores import REPOSITORY, SOUND, WAL_MODES, corpus_answers, unpack

from hnswcheck import HnswcheckError, audit
from hnswcheck.findings import _KINDS, REGISTRY
from hnswcheck.kinds import STATUSES, FindingId, Kind, Status
from hnswcheck.store import database

#: 3-verdicts.md; the engine's answers have no names there.
DESIGN = {
    "store": "store-not-found not-a-chroma-store schema-unknown sqlite-damaged sqlite-busy"
    " store-changed segment-folder-unclaimed segment-folder-quarantined segment-path-unsafe",
    "files": "segment-folder-missing file-missing file-truncated header-invalid"
    " header-dimension-mismatch header-count-impossible link-lists-truncated link-lists-invalid"
    " file-oversized",
    "id map": "id-map-missing id-map-truncated id-map-unsafe id-map-invalid id-map-not-inverse"
    " id-map-label-out-of-range id-map-dimension-mismatch",
    "elements": "label-duplicate label-missing label-tombstoned element-unmapped flush-interrupted",
    "graph": "neighbour-out-of-range neighbour-self neighbour-duplicate degree-too-large"
    " level-inconsistent entry-point-invalid elements-unreachable",
    "ledger": "records-missing records-phantom writes-swallowed replay-blocked lag watermark-legacy"
    " watermark-impossible watermark-encoding wal-unreadable",
    "vectors": "vector-not-finite vector-not-normalised norm-invalid vector-differs-from-wal",
    "second reader": "",
}


@pytest.mark.parametrize("group", DESIGN)
def test_every_finding_of_the_design_is_registered(group: str) -> None:
    registered = {kind.id for kind in REGISTRY.values() if kind.group == group}
    assert set(DESIGN[group].split()) <= registered


def test_what_the_design_calls_by_severity_has_it() -> None:
    for id, severity in (("flush-interrupted", "warning"), ("lag", "info")):
        assert REGISTRY[id].severity == severity


def test_every_entry_is_complete_and_unique() -> None:
    assert len(REGISTRY) == len(_KINDS)
    for id, kind in REGISTRY.items():
        assert id == kind.id
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", id)
        assert kind.group in DESIGN
        assert kind.severity in ("error", "warning", "info")
        for text in (kind.title, kind.consequence, kind.remedy, kind.in_python or "None."):
            assert text == text.strip()
            assert text
            assert "\n" not in text
            assert "  " not in text
        assert not kind.title.endswith("."), id
        assert kind.consequence.endswith((".", '."')), id
        assert kind.in_python.endswith((".", '."')) or not kind.in_python, id
        assert kind.in_python != kind.consequence, id
        assert kind.remedy.endswith("."), id
    titles = [kind.title for kind in REGISTRY.values()]
    assert len(set(titles)) == len(titles)


def test_mypy_knows_every_id_and_no_other() -> None:
    assert get_args(FindingId) == tuple(REGISTRY)


def ids_where(wanted: Callable[[Kind], bool]) -> set[str]:
    return {id for id, kind in REGISTRY.items() if wanted(kind)}


def test_the_design_says_what_each_finding_means_for_its_segment() -> None:
    """3-verdicts.md: the status of a segment."""
    assert set(STATUSES) == set(get_args(Status)) == {kind.status for kind in REGISTRY.values()}
    assert ids_where(lambda kind: kind.status == "diverged") == {
        "records-missing",
        "records-phantom",
        "writes-swallowed",
        "flush-rolled-back",
    }
    assert ids_where(lambda kind: kind.status == "lagging") == {"lag", "flush-interrupted"}
    assert ids_where(lambda kind: kind.status == "empty") == {"segment-not-persisted"}
    unread = {"segment-path-unsafe"}
    assert ids_where(lambda kind: kind.status == "undecided") == unread | ids_where(
        lambda kind: kind.undecides
    )
    errors = ids_where(lambda kind: kind.severity == "error")
    assert errors == unread | ids_where(lambda kind: kind.status in ("diverged", "corrupt"))


def test_a_patch_cures_errors_and_one_warning() -> None:
    patchable = [kind for kind in REGISTRY.values() if kind.patchable]
    assert {kind.id for kind in patchable if kind.severity != "error"} == {"file-oversized"}
    assert not any(kind.undecides for kind in patchable)


def test_what_undecides_is_no_error() -> None:
    """Else a store that could not be read would count as damaged."""
    assert {kind.severity for kind in REGISTRY.values() if kind.undecides} == {"warning"}


def test_the_list_of_findings_names_every_finding() -> None:
    page = (REPOSITORY / "docs" / "findings" / "index.md").read_text("utf-8")
    assert re.findall(r"^\| \[`([a-z-]+)`\]", page, re.M) == list(REGISTRY)


# --- Each finding is produced --------------------------------------------------------------------


def produced(store: Path) -> set[str]:
    """Ids of what an audit finds."""
    try:
        return {found.id for found in audit(store).findings}
    except HnswcheckError as error:
        return {error.finding or ""}


def not_found(target: Path) -> set[str]:
    return produced(target / "nowhere")


def busy(target: Path) -> set[str]:
    """Another connection holds the lock that a commit takes."""
    store = unpack(SOUND, target)
    with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        database.execute("BEGIN EXCLUSIVE")
        return produced(store)


def changed(target: Path) -> set[str]:
    """A database in WAL mode has to be copied; somebody writes while each copy is made."""
    store = unpack(WAL_MODES[0], target)
    copy, numbers = shutil.copyfile, itertools.count(1)

    def written_meanwhile(source: Path, target: Path) -> None:
        copy(source, target)
        with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
            database.execute(f"PRAGMA user_version = {next(numbers)}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "copyfile", written_meanwhile)
        return produced(store)


def unreadable(target: Path) -> set[str]:
    """Not even root can copy a journal that is a directory."""
    store = unpack(SOUND, target)
    (store / "chroma.sqlite3-journal").mkdir()
    return produced(store)


def row_missing(target: Path) -> set[str]:
    store = unpack(SOUND, target)
    with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as database, database:
        database.execute("DELETE FROM segments WHERE scope = 'METADATA'")
    return produced(store)


def not_asked(target: Path) -> set[str]:
    """As where hnswlib is not installed: ``None`` is how the import system says so."""
    store = unpack(SOUND, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "hnswlib", None)
        return {found.id for found in audit(store, "deep").findings}


def for_older(target: Path, name: str, release: str) -> set[str]:
    """For a release that is older than the store."""
    return {found.id for found in audit(unpack(name, target), for_release=release).findings}


#: Findings that no fixture has, and why.
NOT_IN_THE_CORPUS: dict[str, tuple[Callable[[Path], set[str]], str]] = {
    "store-not-found": (not_found, "there is nothing to put into an archive"),
    "sqlite-busy": (busy, "needs a process that holds a lock"),
    "store-changed": (changed, "needs a process that writes"),
    "file-unreadable": (unreadable, "an archive does not keep what may not be read"),
    "second-reader-not-asked": (not_asked, "needs an environment without hnswlib"),
    "release-refuses": (
        lambda target: for_older(target, SOUND, "0.4.24"),
        "is told of an audit for another release than the store's",
    ),
    "id-map-too-new": (
        lambda target: for_older(target, SOUND, "0.6.3"),
        "is told of an audit for another release than the store's",
    ),
    "segment-row-missing": (row_missing, "sqlite alone is at fault; made here"),
}


@pytest.mark.parametrize("id", NOT_IN_THE_CORPUS)
def test_what_no_fixture_has_is_produced(
    id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    make, _ = NOT_IN_THE_CORPUS[id]
    assert id in make(tmp_path)


def test_every_other_finding_is_in_a_fixture() -> None:
    found: set[str] = set()
    for answer in corpus_answers().values():
        if isinstance(answer, HnswcheckError):
            found.add(answer.finding or "")
        else:
            found |= {one.id for one in answer.findings}
    assert found | set(NOT_IN_THE_CORPUS) == set(REGISTRY)
    assert not found & set(NOT_IN_THE_CORPUS)
