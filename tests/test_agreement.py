"""A seeded sample of benchmarks/agreement.py: what the audit says and what the real engine does."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import agreement  # noqa: E402
import faults  # noqa: E402

#: Of each fault that comes out the same every time.
SEEDS = range(10_000, 10_008)
JOBS = 2


def test_no_fault_is_missed_and_no_alarm_is_false(tmp_path: Path) -> None:
    pytest.importorskip("chromadb", reason="the engine is the judge")
    names = sorted(faults.REPEATABLE)
    cases = [agreement.Case(name, seed) for seed in SEEDS for name in names]
    assert len(cases) >= 150
    options = Namespace(directory=tmp_path, chroma_python=sys.executable, jobs=JOBS)
    agreement.make_all(cases, options)
    judged = [agreement.outcome(case, tmp_path, "deep") for case in cases]
    outcomes = [one for one in judged if one is not None]
    agreement.print_classes(outcomes, names)
    kinds = Counter(one.kind for one in outcomes)
    wrong = [f"{o.case.name} {o.kind}: {o.text}" for o in outcomes if o.kind in agreement.WRONG]
    assert wrong == []
    # Both kinds of stores were there, and not all of them were skipped.
    assert kinds["caught"] > 50
    assert kinds["clean"] > 30
