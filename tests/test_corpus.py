"""Every store of the corpus, sound and damaged: exactly the expected findings and no others.

The expectations beside the archives were written by the generator, which knows what it did to each
store, and not by the code under test.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import hnswcheck

CORPUS = Path(__file__).parents[1] / "fixtures" / "corpus"
NAMES = sorted(path.name.removesuffix(".json") for path in CORPUS.glob("*.json"))


def unpack(name: str, target: Path) -> Path:
    """The persist directory of a fixture, unpacked below ``target``."""
    store = target / name
    with tarfile.open(CORPUS / f"{name}.tar.xz") as archive:
        archive.extractall(store, filter="tar")
    return store


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


@pytest.mark.parametrize("name", NAMES)
def test_store_gives_exactly_the_expected_findings(name: str, tmp_path: Path) -> None:
    expected = json.loads((CORPUS / f"{name}.json").read_text("utf-8"))
    found = observe(unpack(name, tmp_path))
    assert found["store"] == expected["store"]
    assert found["exit"] == expected["exit"]
    assert found.get("verdict", expected["verdict"]) == expected["verdict"]
    assert found["collections"].keys() == expected["collections"].keys()
    for key, segment in found["collections"].items():
        wanted = expected["collections"][key]
        assert counts(segment.findings) == wanted["findings"], key
        assert segment.status == wanted["status"], key
        by_id = {one.id: sorted(one.sample) for one in segment.findings}
        for finding, ids in wanted.get("ids", {}).items():
            assert by_id[finding] == sorted(ids), (key, finding)
        ledger = asdict(segment.ledger)
        known = wanted.get("ledger", {})
        assert {field: ledger[field] for field in known} == known, key
