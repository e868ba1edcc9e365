"""Seeded samples of benchmarks/agreement.py and repair.py, with the real engine as the judge."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest
from stores import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import agreement
import faults
import repair

pytestmark = pytest.mark.slow

NAMES = sorted(faults.REPEATABLE)  # the faults that come out the same every time
CASES = [agreement.Case(name, seed) for seed in range(10_000, 10_008) for name in NAMES]
REPAIRED = [case for case in CASES if case.seed < 10_002]
JOBS = 2


@pytest.fixture(scope="module")
def lab(chroma: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores of all cases, and what the engine says of each."""
    directory = tmp_path_factory.mktemp("lab")
    options = Namespace(directory=directory, chroma_python=sys.executable, jobs=JOBS)
    agreement.make_all(CASES, options)
    return directory


def test_no_fault_is_missed_and_no_alarm_is_false(lab: Path) -> None:
    assert len(CASES) >= 150
    judged = [agreement.outcome(case, lab / case.name, "deep") for case in CASES]
    outcomes = [one for one in judged if one is not None]
    agreement.print_classes(outcomes, NAMES)
    kinds = Counter(one.kind for one in outcomes)
    wrong = [f"{o.case.name} {o.kind}: {o.text}" for o in outcomes if o.kind in agreement.WRONG]
    assert wrong == []
    # Both kinds of stores were there, and not all of them were skipped.
    assert kinds["caught"] > 50
    assert kinds["clean"] > 30


def test_no_wrong_vector_is_called_proven_and_the_engine_is_content(lab: Path) -> None:
    pytest.importorskip("hnswlib", reason="an index cannot be built without it")
    outcomes = repair.run(list(repair.broken_stores(lab, REPAIRED)), sys.executable, JOBS)
    repair.print_table(outcomes)
    assert [(o.name, o.wrong) for o in outcomes if o.wrong] == []
    kinds = [outcome.kind for outcome in outcomes]
    assert kinds.count("whole") > 10
    assert kinds.count("with flags") > 5
    assert "RepairFailed" not in kinds
