"""An audit for a release says what that release does with the store: the release itself is asked.

Each release opens a copy, in a process of its own: it lists the collections, and counts, gets,
searches and writes each of them.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from environments import TIME_LIMIT, VERSIONS, python_of, try_in_chroma
from stores import run, unpack

import hnswcheck
from hnswcheck.findings import REGISTRY
from hnswcheck.store.openers import OPENERS, known_release, opener_of, spans
from hnswcheck.store.releases import RELEASES, STEPS, numbers_of
from hnswcheck.store.watermarks import integer_of

RELEASED = tuple(VERSIONS.values())
NEWEST = RELEASED[-1]

#: Stores that every release is asked about.
BY_ALL = (
    *(f"{version}-churn-l2" for version in RELEASED),
    "0.6.3-never-flushed",
    "0.6.3-no-collections",
    "1.5.9-never-flushed",
    "1.5.9-never-written",
    "1.5.9-upgraded-from-0-4-24",
    "1.5.9-upgraded-from-0-6-3",
)
#: And those that look at settings, or may have migrations of their own.
BY_SOME = (
    *(f"{v}-damaged-{s}" for v in ("0.4.24", "0.6.3") for s in ("setting-unknown",)),
    *(f"{v}-damaged-{s}" for v in ("0.4.24", "0.6.3") for s in ("setting-of-text",)),
    *(f"{v}-damaged-{s}" for v in ("0.4.24", "0.6.3") for s in ("batch-above-sync",)),
    "0.4.24-damaged-batch-equals-sync",
    "0.6.3-damaged-settings-in-metadata",
    "0.6.3-damaged-watermark-integer",
    "0.6.3-damaged-watermark-blob24",
    "0.6.3-damaged-watermark-digits-as-number",
    "0.6.3-damaged-watermark-zero",
    "0.6.3-damaged-watermark-gone",
)


#: What 1.x panics with now and then where it has just migrated a store, and then no more.
MIGRATING = "ColumnNotFound"


def pairs() -> Iterator[tuple[str, str]]:
    yield from ((name, version) for name in BY_ALL for version in RELEASED)
    yield from ((name, version) for name in BY_SOME for version in ("0.5.23", "0.6.3", NEWEST))


def opens(store: Path, version: str, report: hnswcheck.StoreReport, scratch: Path) -> str:
    """What a release complains of; empty if it does all that it is asked."""
    copy = scratch / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(store, copy)
    collections: list[dict[str, Any]] = [
        {
            "name": one.collection.name,
            "dimension": one.collection.dimension or 4,
            "records": one.ledger.records_after_replay,
        }
        for one in report.segments
    ]
    tried = try_in_chroma("open", copy, {"collections": collections}, python_of(version))
    return "" if tried.death.code == 0 else (tried.output.splitlines() or ["died"])[-1]


@pytest.mark.parametrize(("name", "version"), list(pairs()))
def test_an_audit_for_a_release_agrees_with_it(name: str, version: str, tmp_path: Path) -> None:
    store = unpack(name, tmp_path)
    (written,) = hnswcheck.audit(store).stores
    (judged,) = hnswcheck.audit(store, for_release=version).stores
    complaint = opens(store, version, written, tmp_path)
    if MIGRATING in complaint:
        complaint = opens(store, version, written, tmp_path)
    found = [(one.id, one.found) for one in judged.all_findings if one.severity == "error"]
    assert (judged.verdict == "damaged") is bool(complaint), (found, complaint)


@pytest.mark.parametrize("name", BY_ALL)
def test_a_sound_store_names_the_releases_that_open_it(name: str, tmp_path: Path) -> None:
    """They are those for which an audit finds it sound."""
    store = unpack(name, tmp_path)
    (report,) = hnswcheck.audit(store).stores
    sound = [
        opener
        for opener in OPENERS
        if hnswcheck.audit(store, for_release=opener.last).verdict == "consistent"
    ]
    assert report.chroma is not None
    assert report.chroma.readable_by == spans(sound)


def test_settings_that_a_later_release_refuses_are_told_beforehand(tmp_path: Path) -> None:
    store = unpack("0.4.24-damaged-batch-above-sync", tmp_path)
    (written,) = hnswcheck.audit(store).stores
    (found,) = written.findings
    assert (found.id, found.severity, found.found) == (
        "settings-refused-elsewhere", "info", "0.5.4 to 0.6.3",
    )  # fmt: skip
    (judged,) = hnswcheck.audit(store, for_release="0.6.3").stores
    assert [one.id for one in judged.findings] == ["settings-refused"]
    assert written.chroma is not None
    assert written.chroma.readable_by == ("0.4.1 to 0.5.3", "1.0.0 to 1.5.9")
    assert judged.chroma == replace(written.chroma, judged_for="0.6.3")


@pytest.mark.parametrize(
    ("version", "finding"),
    [("0.4.24", "release-refuses"), ("1.0.20", "release-refuses"), ("1.2.2", "release-refuses")],
)
def test_a_release_that_cannot_open_a_newer_store_is_named(
    version: str, finding: str, tmp_path: Path
) -> None:
    """1.2.2 opens it, and measures l2 under cosine; what is in the store is sound all the same."""
    store = unpack("1.5.9-churn-cosine", tmp_path)
    (report,) = hnswcheck.audit(store, for_release=version).stores
    assert [(one.id, one.found) for one in report.findings] == [(finding, version)]
    assert {one.status for one in report.segments} == {"lagging"}


def test_a_release_that_knows_no_schemas_opens_what_is_l2(tmp_path: Path) -> None:
    store = unpack("1.5.9-churn-l2", tmp_path)
    assert hnswcheck.audit(store, for_release="1.2.2").verdict == "consistent"
    assert hnswcheck.audit(store, for_release="1.2.1").verdict == "damaged"


#: Stores of 0.6, a finding, and of what the finding's text quotes what 0.6 ends with.
ENDS_IN_PYTHON = {
    "0.6.3-damaged-header-deleted": ("file-missing", "Cannot open header file"),
    "0.6.3-damaged-id-map-halved": ("id-map-truncated", "pickle data was truncated"),
    "0.6.3-killed-in-first-id-map": ("id-map-truncated", "Ran out of input"),
    "0.6.3-damaged-folder-deleted": ("records-missing", "list assignment index out of range"),
    "0.6.3-damaged-id-map-lost-pair": ("records-missing", "object is not subscriptable"),
    "0.6.3-damaged-label-unknown": ("label-missing", "Label not found"),
    "0.6.3-damaged-live-tombstoned": ("label-tombstoned", "Label not found"),
    "0.6.3-damaged-live-tombstoned-and-blocked": ("replay-blocked", "KeyError"),
    "0.6.3-damaged-id-map-not-inverse": ("id-map-not-inverse", "KeyError"),
}


@pytest.mark.parametrize("name", ENDS_IN_PYTHON)
def test_a_finding_says_how_a_python_chroma_ends(name: str, tmp_path: Path) -> None:
    """And of a store that 1.x is to open what the one in Rust does."""
    id, quoted = ENDS_IN_PYTHON[name]
    kind = REGISTRY[id]
    store = unpack(name, tmp_path)
    (report,) = hnswcheck.audit(store).stores
    said = {one.id: one.consequence for one in report.all_findings}
    assert said[id] == kind.in_python
    assert quoted in kind.in_python
    judged = hnswcheck.audit(store, for_release=NEWEST)
    assert {f.consequence for f in judged.findings if f.id == id} <= {kind.consequence}
    assert quoted in opens(store, "0.6.3", report, tmp_path)


@pytest.mark.parametrize("ending", ["integer", "blob24", "digits-as-number", "zero", "huge"])
def test_an_upgrade_makes_the_watermark_that_the_audit_counts_with(
    ending: str, tmp_path: Path
) -> None:
    store = unpack(f"0.6.3-damaged-watermark-{ending}", tmp_path)
    before = watermarks(store)
    script = "import sys, chromadb; chromadb.PersistentClient(sys.argv[1]).list_collections()"
    subprocess.run([python_of(NEWEST), "-c", script, str(store)], check=True, timeout=TIME_LIMIT)
    assert watermarks(store) == {segment: integer_of(raw) for segment, raw in before.items()}


def watermarks(store: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        return dict(database.execute("SELECT segment_id, seq_id FROM max_seq_id").fetchall())


@pytest.mark.parametrize("version", ["9.9", "1.5.10", "0.5.24", "0.3.29", "one", "", "1.5.9.1"])
def test_a_release_that_nobody_knows_is_wrong_use(version: str, tmp_path: Path) -> None:
    store = unpack("0.6.3-never-written", tmp_path)
    with pytest.raises(hnswcheck.UsageError, match="unknown release of Chroma"):
        hnswcheck.audit(store, for_release=version)
    done = run("audit", str(store), "--for", version)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_a_version_that_leaves_numbers_out_is_its_newest_release() -> None:
    assert [known_release(v) for v in ("0.4", "0.5", "1.0", "1", "1.5.3")] == [
        "0.4.24", "0.5.23", "1.0.21", "1.5.9", "1.5.3",
    ]  # fmt: skip


def test_the_ranges_are_without_gaps_and_follow_lines_and_migrations() -> None:
    """A range is never of two lines, nor of two kinds of stores that it could have written."""
    assert opener_of(STEPS[0].first) is OPENERS[0]
    assert OPENERS[-1].last == STEPS[-1].last
    for before, after in itertools.pairwise(OPENERS):
        assert numbers_of(before.last) < numbers_of(after.first)
    borders = {release.first for release in RELEASES.values()}
    assert borders <= {numbers_of(opener.first) for opener in OPENERS}
