"""Each reason of a grade has a store that has it, and a store that nearly has it.

Both are fixtures that real Chroma wrote, or such a fixture after one more edit, and all their
records are counted by reason.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from stores import rest, run, unpack

import hnswcheck
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.reason import Reason

Edit = Callable[[Path], object]
#: A fixture, perhaps with an edit, and how many of its records have their grade for each reason.
Case = tuple[str | tuple[str, Edit], dict[str, int]]


def update_metadata_of_the_first_add(store: Path) -> None:
    """The log goes on with an update without a vector, which sqlite has applied."""
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as database, database:
        database.execute(
            "INSERT INTO embeddings_queue (seq_id, operation, topic, id)"
            " SELECT 130, 1, topic, id FROM embeddings_queue WHERE seq_id = 120"
        )
        database.execute("UPDATE embeddings SET seq_id = 130 WHERE seq_id = 120")
        database.execute("UPDATE max_seq_id SET seq_id = 130 WHERE seq_id = 129")


def repair_and_lose_the_header(store: Path) -> None:
    """With whatever is found accepted; then the new index, which is sound, loses its header."""
    pytest.importorskip("hnswlib", reason="an index cannot be built without it")
    accept = ("inferred", "unconfirmed")
    report = hnswcheck.repair(rest(store), accept=accept, verify="audit")
    (segment,) = report.segments
    (store / segment.segment / "header.bin").unlink()


CASES: dict[Reason, tuple[Case, Case]] = {
    Reason.NOWHERE: (
        ("1.5.9-damaged-folder-deleted", {"in-log": 8, "nowhere": 80}),
        ("1.5.9-damaged-folder-renamed", {"in-log": 8, "folder-not-older": 80}),
    ),
    Reason.VECTOR_DAMAGED: (
        (
            "1.5.9-damaged-vector-no-number",
            {"ids-agree": 79, "in-log": 8, "vector-damaged": 1},
        ),
        ("1.5.9-damaged-vector-changed", {"ids-agree": 80, "in-log": 8}),  # to another vector
    ),
    Reason.HISTORIES_MIXED: (
        (
            "1.5.9-damaged-record-inserted",
            {"in-log": 8, "histories-mixed": 80, "nowhere": 1},
        ),
        ("1.5.9-damaged-record-deleted", {"folder-not-older": 79, "in-log": 8}),
    ),
    Reason.LABEL_TWICE: (
        ("1.5.9-damaged-label-twice", {"ids-agree": 78, "in-log": 8, "label-twice": 2}),
        ("1.5.9-damaged-label-unknown", {"ids-agree": 79, "in-log": 8, "damage-near": 1}),
    ),
    Reason.DELETE_MARK: (
        ("1.5.9-damaged-live-tombstoned", {"ids-agree": 79, "in-log": 8, "delete-mark": 1}),
        ("1.5.9-damaged-live-tombstoned-and-upserted", {"ids-agree": 80, "in-log": 8}),
    ),
    Reason.DAMAGE_NEAR: (
        ("1.5.9-damaged-label-unknown", {"ids-agree": 79, "in-log": 8, "damage-near": 1}),
        ("1.5.9-damaged-labels-exchanged", {"ids-agree": 59, "in-log": 1}),
    ),
    Reason.WRITTEN_SINCE: (
        (
            "1.5.9-damaged-folder-older",
            {"in-log": 8, "no-evidence": 41, "written-since": 5, "nowhere": 34},
        ),
        ("1.5.9-damaged-folder-older-unpurged", {"in-log": 88}),
    ),
    Reason.NO_EVIDENCE: (
        ("1.5.9-damaged-data-tail-zeroed", {"in-log": 8, "no-evidence": 76, "nowhere": 4}),
        ("1.5.9-damaged-data-halved", {"ids-agree": 36, "in-log": 8, "nowhere": 44}),
    ),
    Reason.FOLDER_NEWER: (
        ("1.5.9-damaged-deletions-not-in-index", {"folder-newer": 30}),
        ("1.5.9-damaged-log-lost-a-deletion", {"folder-not-older": 80, "in-log": 8}),
    ),
    Reason.LENGTH_UNKNOWN: (
        ("1.5.9-damaged-norms-cut", {"ids-agree": 58, "in-log": 1, "length-unknown": 1}),
        ("1.5.9-damaged-length-cut", {"ids-agree": 80, "in-log": 8}),  # l2: no length is needed
    ),
    Reason.ADD_UNCERTAIN: (
        (
            ("1.5.9-damaged-folder-deleted", update_metadata_of_the_first_add),
            {"in-log": 7, "add-uncertain": 1, "nowhere": 80},
        ),
        ("1.5.9-damaged-folder-deleted", {"in-log": 8, "nowhere": 80}),
    ),
    Reason.NUMBERED_AGAIN: (
        (
            "1.5.9-damaged-log-lost-its-tail",
            {"in-log": 1, "numbered-again": 80, "no-evidence": 2, "nowhere": 5},
        ),
        ("1.5.9-damaged-log-emptied", {"never-changed": 60}),
    ),
    Reason.PERHAPS_DELETED: (
        (
            "1.5.9-log-emptied-after-deletions",
            {"ids-agree": 44, "in-log": 9, "perhaps-deleted": 3},
        ),
        ("1.5.9-log-emptied-then-added", {"ids-agree": 50, "in-log": 12}),
    ),
    Reason.FILES_DIFFER: (
        (
            "1.5.9-damaged-pages-of-the-flush-before",  # two of the 15 have a vector from before
            {"ids-agree": 65, "files-differ": 15, "in-log": 8},
        ),
        ("1.5.9-damaged-links-cut", {"ids-agree": 80, "in-log": 8}),
    ),
    Reason.CALL_UNDONE: (
        ("0.6.3-killed-before-id-map", {"in-log": 1, "call-undone": 49}),
        ("0.6.3-killed-in-first-id-map", {"in-log": 30}),
    ),
    Reason.BY_ORDER: (
        ("1.5.9-damaged-id-map-deleted", {"in-log": 8, "by-order": 80}),
        ("1.5.9-damaged-id-map-halved", {"ids-agree": 80, "in-log": 8}),
    ),
    Reason.ID_MAP_DISPUTED: (
        (
            "1.5.9-damaged-label-above-total",
            {"ids-agree": 79, "in-log": 8, "id-map-disputed": 1},
        ),
        ("1.5.9-damaged-id-map-one-sided", {"ids-agree": 80, "in-log": 8}),
    ),
    Reason.IN_LOG: (
        ("1.5.9-damaged-folder-deleted-unflushed", {"in-log": 88}),
        ("1.5.9-damaged-log-vector-odd", {"ids-agree": 80, "in-log": 7, "nowhere": 1}),
    ),
    Reason.IDS_AGREE: (
        ("1.5.9-damaged-header-deleted", {"ids-agree": 80, "in-log": 8}),
        ("1.5.9-damaged-count-too-small", {"folder-not-older": 80, "in-log": 8}),
    ),
    Reason.ORDER_CONFIRMED: (
        ("1.5.9-damaged-id-map-ahead", {"order-confirmed": 49, "in-log": 50}),
        ("1.5.9-damaged-id-map-empty", {"in-log": 8, "by-order": 80}),
    ),
    Reason.NEVER_CHANGED: (
        ("1.5.9-damaged-log-emptied", {"never-changed": 60}),
        (
            "1.5.9-damaged-interrupted-and-purged",
            {"in-log": 1, "numbered-again": 59, "nowhere": 50},
        ),
    ),
    Reason.FOLDER_NOT_OLDER: (
        ("1.5.9-damaged-watermark-ahead", {"folder-not-older": 80, "in-log": 8}),
        ("1.5.9-damaged-watermark-at-end", {"ids-agree": 59, "in-log": 1}),
    ),
    Reason.ACCEPTED_BEFORE: (
        (
            ("1.5.9-damaged-id-map-deleted", repair_and_lose_the_header),
            {"in-log": 8, "accepted-before": 80},
        ),
        (
            ("1.5.9-damaged-folder-renamed", repair_and_lose_the_header),
            {"in-log": 8, "ids-agree": 80},
        ),
    ),
}


def made(of: str | tuple[str, Edit], folder: Path) -> Path:
    name, edit = (of, None) if isinstance(of, str) else of
    store = unpack(name, folder)
    if edit is not None:
        edit(store)
    return rest(store)


def name_of(store: Path) -> str:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        ((name,),) = database.execute("SELECT name FROM collections").fetchall()
    return str(name)


def counted(export: hnswcheck.SalvageResult) -> dict[str, int]:
    """How many records each reason has, which all parts of an export must agree on."""
    told = {reason.slug: n for by in export.reasons.values() for reason, n in by.items()}
    lines = [json.loads(line) for line in export.lines.read_text("utf-8").splitlines()]
    assert Counter(line["reason"] for line in lines) == told
    with np.load(export.vectors) as arrays:
        numbers, grades = arrays["reasons"], arrays["grades"]
    assert numbers.dtype == np.uint8
    assert [Reason(number).slug for number in numbers.tolist()] == [
        line["reason"] for line in lines
    ]
    for line, grade, number in zip(lines, grades.tolist(), numbers.tolist(), strict=True):
        assert line["grade"] == Grade(grade).name.lower()
        assert Reason(number).grade in (None, grade)
    return told


def test_every_reason_has_its_two_stores() -> None:
    assert list(CASES) == list(Reason)
    for reason, ((_, has), (_, nearly)) in CASES.items():
        assert reason.slug in has
        assert reason is Reason.IN_LOG or reason.slug not in nearly


@pytest.mark.parametrize("which", ["has it", "nearly has it"])
@pytest.mark.parametrize("reason", CASES, ids=lambda reason: reason.slug)
def test_a_store_has_exactly_the_reasons_that_its_damage_gives(
    reason: Reason, which: str, tmp_path: Path
) -> None:
    of, expected = CASES[reason][which != "has it"]
    store = made(of, tmp_path)
    assert counted(hnswcheck.salvage(store, name_of(store), tmp_path / "out")) == expected


@pytest.mark.parametrize(
    ("name", "grade", "count"),
    [
        ("1.5.9-damaged-id-map-deleted", Grade.INFERRED, 80),
        ("1.5.9-damaged-deletions-not-in-index", Grade.UNCONFIRMED, 30),
    ],
)
def test_an_accepted_vector_keeps_its_grade_for_the_reason_that_it_was_accepted(
    name: str, grade: Grade, count: int, tmp_path: Path
) -> None:
    store = made((name, repair_and_lose_the_header), tmp_path)
    export = hnswcheck.salvage(store, name_of(store), tmp_path / "out")
    assert export.reasons[grade] == {Reason.ACCEPTED_BEFORE: count}


def test_a_damaged_element_says_more_than_that_the_vector_is_nowhere(tmp_path: Path) -> None:
    """Also where a second folder lacks the record."""
    store = unpack("1.5.9-damaged-vector-no-number", tmp_path)
    (folder,) = (path.parent for path in store.glob("*/header.bin"))
    shutil.copytree(folder, f"{folder}.drift-20240101-000000")
    expected = CASES[Reason.VECTOR_DAMAGED][0][1]
    export = hnswcheck.salvage(rest(store), name_of(store), tmp_path / "out")
    assert counted(export) == expected


def test_sentences_are_plain_different_and_short() -> None:
    sentences = [reason.sentence for reason in Reason]
    assert len({*sentences}) == len({reason.slug for reason in Reason}) == len(Reason)
    for sentence in sentences:
        assert 10 < len(sentence) <= 80
        assert sentence.isascii()
        assert sentence == sentence.strip(" .\n")


# --- Where a person or a program reads them -------------------------------------------------------


def test_a_plan_counts_records_by_grade_and_reason(tmp_path: Path) -> None:
    store = rest(unpack("1.5.9-damaged-label-twice", tmp_path))
    plan = run("repair", store, "--plan", "--json")
    found = json.loads(plan.stdout)
    (segment,) = found["segments"]
    assert segment["grades"] == {"proven": 86, "suspect": 2}
    assert segment["reasons"] == {
        "proven": {"ids-agree": 78, "in-log": 8},
        "suspect": {"label-twice": 2},
    }
    assert found["legend"] == {
        reason.slug: reason.sentence
        for reason in (Reason.IDS_AGREE, Reason.IN_LOG, Reason.LABEL_TWICE)
    }
    by_reason = Counter((grade, reason) for _, _, grade, reason in segment["records"])
    assert by_reason == {
        ("proven", "ids-agree"): 78,
        ("proven", "in-log"): 8,
        ("suspect", "label-twice"): 2,
    }
    said = " ".join(plan.stderr.split())
    assert "2 suspect two elements carry the label" in said
    assert "8 proven the log holds the vector that was written last" in said


def test_the_help_of_salvage_has_a_legend_of_the_numbers() -> None:
    text = " ".join(run("salvage", "--help").stdout.split())
    for reason in Reason:
        assert f"{reason.value} {reason.slug}: {reason.sentence}" in text
