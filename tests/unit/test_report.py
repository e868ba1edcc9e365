"""A report is read back as it was written, and what is none is refused in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from hnswcheck.errors import UsageError
from hnswcheck.kinds import SEVERITIES, STATUSES
from hnswcheck.report import (
    ChromaInfo,
    CollectionInfo,
    Finding,
    Ledger,
    Level,
    Pending,
    Recoverable,
    Report,
    SegmentReport,
    StoreReport,
    finding,
    json_schema,
)

VALIDATOR = Draft202012Validator(json.loads(json_schema()))

texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
counts = st.integers(0, 2**63 - 1)
facts = st.none() | texts | numbers | st.floats(allow_nan=False, allow_infinity=False)
findings = st.builds(
    Finding,
    id=st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True),
    severity=st.sampled_from(SEVERITIES),
    title=texts,
    count=counts,
    sample=st.lists(texts, max_size=3).map(tuple),
    expected=facts,
    found=facts,
    consequence=texts,
    remedy=texts,
)
some_findings = st.lists(findings, max_size=3).map(tuple)
pending = st.builds(Pending, counts, counts, counts, counts)
segments = st.builds(
    SegmentReport,
    collection=st.builds(
        CollectionInfo,
        id=texts,
        name=texts,
        tenant=texts,
        database=texts,
        dimension=st.none() | numbers,
        space=texts,
    ),
    vector_segment=st.none() | texts,
    metadata_segment=st.none() | texts,
    status=st.sampled_from(STATUSES),
    ledger=st.builds(
        Ledger,
        records=st.none() | counts,
        vector_watermark=st.none() | numbers,
        pending=st.none() | pending,
    ),
    recoverable=st.builds(Recoverable, lost=st.none() | counts),
    findings=some_findings,
)
stores = st.builds(
    StoreReport,
    path=texts,
    verdict=st.sampled_from(["consistent", "damaged", "undecided"]),
    level=st.sampled_from(Level),
    complete=st.booleans(),
    elapsed_seconds=st.floats(0, 1e9),
    chroma=st.none()
    | st.builds(
        ChromaInfo,
        line=texts,
        releases=texts,
        migrations=st.dictionaries(texts, numbers, max_size=3),
    ),
    findings=some_findings,
    segments=st.lists(segments, max_size=2).map(tuple),
)
reports = st.builds(Report, st.lists(stores, max_size=2).map(tuple))


@given(reports)
def test_whatever_a_report_says_is_read_back_and_follows_the_schema(report: Report) -> None:
    text = report.to_json()
    assert text.isascii()
    again = Report.from_json(text)
    assert again == report
    assert again.to_json() == text
    assert [type(store.level) for store in again.stores] == [Level] * len(report.stores)
    VALIDATOR.validate(json.loads(text))


STORE = StoreReport(
    path="a",
    verdict="damaged",
    level=Level.PROBE,
    complete=True,
    elapsed_seconds=0.5,
    chroma=None,
    findings=(finding("sqlite-damaged", 2, ["a page"]),),
    segments=(),
)


def changed(change: Any) -> str:
    document = json.loads(Report((STORE,)).to_json())
    change(document)
    return json.dumps(document)


def put(*path: str | int, value: object) -> str:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return changed(change)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "invalid report: no JSON: "),
        (b"\xff", "invalid report: no JSON: "),
        ("[" * 100_000, "invalid report: no JSON: "),
        ("[]", "invalid report: it names no schema; this version reads hnswcheck.report/1"),
        ('{"schema": 1}', "invalid report: it names no schema"),
        (
            put("schema", value="hnswcheck.report/2"),
            "invalid report: its schema is 'hnswcheck.report/2'; this version reads"
            " hnswcheck.report/1",
        ),
        (put("stores", value=None), "invalid report at $.stores: expected array, got null"),
        (
            put("stores", 0, "verdict", value="fine"),
            "invalid report at $.stores[0].verdict: invalid enum value 'fine'",
        ),
        (put("stores", 0, "level", value="all"), "invalid report at $.stores[0].level: "),
        (
            put("stores", 0, "findings", 0, "count", value=-1),
            "invalid report at $.stores[0].findings[0].count: expected int >= 0",
        ),
        (
            put("stores", 0, "findings", 0, "count", value=True),
            "invalid report at $.stores[0].findings[0].count: expected int, got bool",
        ),
        (
            put("stores", 0, "findings", 0, "sample", value=[1]),
            "invalid report at $.stores[0].findings[0].sample[0]: expected str, got int",
        ),
        (put("stores", 0, "elapsed_seconds", value=10**400), "invalid report at $"),
        (
            changed(lambda document: document["stores"][0].pop("path")),
            "invalid report at $.stores[0]: object missing required field path",
        ),
    ],
)
def test_what_is_no_report_is_refused_in_one_line_that_names_the_place(
    text: str | bytes, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        Report.from_json(text)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_findings_of_a_newer_version_are_kept_and_its_fields_passed_over() -> None:
    def later(document: Any) -> None:
        document["stores"][0]["findings"][0]["id"] = "disk-on-fire"
        document["stores"][0]["weather"] = {"rain": True}

    report = Report.from_json(changed(later))
    (found,) = report.findings
    assert (found.id, found.count, found.sample) == ("disk-on-fire", 2, ("a page",))
    assert (found.kind, found.undecides) == (None, False)
    assert report.exit_code() == 1
    with pytest.raises(UsageError, match="unknown severity 'fatal'"):
        report.exit_code("fatal")  # type: ignore[arg-type]
    assert not report.stores[0].is_database_damaged
    assert Report.from_json(report.to_json()) == report
