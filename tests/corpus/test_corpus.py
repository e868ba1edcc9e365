"""Every store of the corpus, sound and damaged: exactly the expected findings and no others.

The expectations beside the archives were written by the generator, which knows what it did to each
store, and not by the code under test.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from stores import NAMES, corpus_answers, expectation, unpack

import hnswcheck
from hnswcheck import Level

LEVELS = (Level.STANDARD, Level.DEEP)


def counts(findings: tuple[hnswcheck.Finding, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in findings:
        found[one.id] = found.get(one.id, 0) + one.count
    return found


def observe(store: Path) -> dict[str, Any]:
    """What an audit says, in the form of an expectation."""
    try:
        report = hnswcheck.audit(store, all_ids=True)
    except hnswcheck.HnswcheckError as error:
        return {"exit": error.exit_code, "store": {error.finding: 1}, "collections": {}}
    (found,) = report.stores
    return {
        "verdict": found.verdict,
        "exit": report.exit_code(),
        "store": counts(found.findings),
        "collections": {
            f"{s.collection.tenant}/{s.collection.database}/{s.collection.name}": s
            for s in found.segments
        },
    }


def agrees(found: dict[str, int], expected: dict[str, int | None]) -> bool:
    """The same findings, as often; None stands for a count that the generator cannot know."""
    counted = {key: found.get(key) if n is None else n for key, n in expected.items()}
    return found == counted


@pytest.mark.parametrize("name", NAMES)
def test_store_gives_exactly_the_expected_findings(name: str, tmp_path: Path) -> None:
    check_store(unpack(name, tmp_path), expectation(name))


def check_store(store: Path, expected: dict[str, Any]) -> None:
    found = observe(store)
    assert found["store"] == expected["store"]
    assert found["exit"] == expected["exit"]
    assert found.get("verdict", expected["verdict"]) == expected["verdict"]
    wanted = expected["collections"] or {}
    assert found["collections"].keys() == wanted.keys()
    for key, segment in found["collections"].items():
        check_segment(segment, wanted[key])


#: What sound indexes have a little of, too.
RATES = {"elements-unreachable", "searches-miss"}
#: hnswlib does what Chroma does with a graph that leads nowhere.
FOLLOWS_LINKS = "second-reader-disagrees"


@pytest.mark.parametrize("name", NAMES)
def test_level_deep_adds_exactly_what_is_expected(name: str) -> None:
    at_standard, at_deep = (corpus_answers()[name, level] for level in LEVELS)
    if isinstance(at_deep, hnswcheck.HnswcheckError):
        assert isinstance(at_standard, type(at_deep))
        return
    assert isinstance(at_standard, hnswcheck.Report)
    added = counts(at_deep.findings)
    for finding, number in counts(at_standard.findings).items():
        assert added.pop(finding) >= number
    damaged = at_standard.verdict == "damaged"
    ignored = RATES | ({FOLLOWS_LINKS, "vector-differs-from-wal"} if damaged else set())
    found = {finding: number for finding, number in added.items() if finding not in ignored}
    assert found == expectation(name).get("deep", {})


def check_segment(segment: hnswcheck.SegmentReport, wanted: dict[str, Any]) -> None:
    assert agrees(counts(segment.findings), wanted["findings"]), counts(segment.findings)
    assert segment.status == wanted["status"]
    by_id = {one.id: sorted(one.sample) for one in segment.findings}
    for finding, ids in wanted.get("ids", {}).items():
        assert by_id[finding] == sorted(ids), finding
    ledger = asdict(segment.ledger)
    known = wanted.get("ledger", {})
    assert {field: ledger[field] for field in known} == known
