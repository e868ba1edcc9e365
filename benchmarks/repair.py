"""Every broken store of the fault lab repaired, judged by the engine and the writer's truth.

    python benchmarks/repair.py --stores 80 --seed 10000 --directory KEEP

Makes the stores of benchmarks/agreement.py (those that ``--directory`` keeps are used again),
repairs a copy of each that the engine broke on, first without any flag; where that is refused, with
every grade accepted and the rest left without a vector. Then the engine reads and writes each
repaired collection, and every vector is compared with what the writer wrote; with ``--runs 10`` it
goes on as an application does, in so many more processes. Ends with 1 where the engine is not
content, a write was lost, or a vector that was called proven is not the record's own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "benchmarks")]

import agreement  # noqa: E402
import faults  # noqa: E402
import oracle  # noqa: E402

import hnswcheck  # noqa: E402
from hnswcheck.repairing.choices import ACCEPTABLE  # noqa: E402
from hnswcheck.repairing.repair import RepairReport, repair  # noqa: E402
from hnswcheck.repairing.segment_plan import SegmentRepair  # noqa: E402
from hnswcheck.salvaging.grade import Grade  # noqa: E402

PHASES = oracle.PHASES[:2]
#: What may be wrong with records whose vector is not proven, once the caller has accepted that.
EXPECTED = {
    oracle.Kind.MISSING,
    oracle.Kind.WRONG,
    oracle.Kind.STALE,
    oracle.Kind.UNFOUND,
    oracle.Kind.LOST,
}
GRADES = [grade.name.lower() for grade in sorted(Grade, reverse=True)]


@dataclass(slots=True)
class Outcome:
    """One store.

    Attributes:
        kind: "whole" without a flag, "with flags", or why nothing was done.
        grades: records by the grade of their best vector.
        wrong: what the engine found wrong afterwards that nobody had accepted.
        unfound: records that searches pass by, as in any HNSW index.
    """

    name: str
    kind: str
    grades: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    unfound: int = 0

    @property
    def fault(self) -> str:
        return self.name.rpartition("-")[0]


class Worker:
    """A process that repairs stores and asks the engine about them."""

    scratch: Path
    judge: oracle.Oracle
    phases: tuple[str, ...]

    @classmethod
    def start(cls, python: str, runs: int) -> None:
        cls.phases = (*PHASES, *oracle.living_on(runs))
        cls.scratch = Path(tempfile.mkdtemp(prefix="repair-"))
        cls.judge = oracle.Oracle(python, time_limit=60, scratch=cls.scratch)

    @classmethod
    def case(cls, original: Path) -> Outcome:
        """Repair a copy of a store, and judge it."""
        store = cls.scratch / "store"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(original, store, symlinks=True)
        outcome = Outcome(original.parent.name, "whole")
        try:
            report = repair(store, dry_run=True)
            for segment in report.segments:
                outcome.grades.update(segment.grades)
            if any(segment.fates is None for segment in report.refused):
                outcome.kind = "not the index"
                return outcome
            if report.refused:
                outcome.kind = "with flags"
                report = repair(store, accept=ACCEPTABLE, leave_unindexed=True, verify="audit")
            else:
                report = repair(store, verify="audit")  # the engine is asked below, and thoroughly
        except hnswcheck.HnswcheckError as error:
            outcome.kind = type(error).__name__
            return outcome
        if not report.segments:
            outcome.kind = "nothing to do"
        for found in cls.complaints(store, report, outcome):
            outcome.wrong.append(found)
        return outcome

    @classmethod
    def complaints(cls, store: Path, report: RepairReport, outcome: Outcome) -> Iterator[str]:
        repaired = {segment.collection.name: segment for segment in report.segments}
        for subject in oracle.subjects(store):
            if subject.name not in repaired:
                continue
            doubtful = unproven(repaired[subject.name])
            judged = cls.judge.judge(store, subject, faults.truth, phases=cls.phases)
            for problem in judged.problems:
                named = set(problem.ids)
                if problem.kind == oracle.Kind.UNFOUND:
                    outcome.unfound = max(outcome.unfound, problem.count)
                elif problem.kind in EXPECTED and named and named <= doubtful:
                    continue
                elif doubtful and not named and "get embeddings" in problem.step:
                    continue  # it fails for all where one has none
                else:
                    yield f"{subject.name}: {problem.kind} at {problem.step}: {problem.message}"


def unproven(segment: SegmentRepair) -> set[str]:
    return {record.id for record in segment.records() if record.grade != "proven"}


def broken_stores(directory: Path, cases: Sequence[agreement.Case]) -> Iterator[Path]:
    """The stores with a collection that the engine broke on."""
    for case in cases:
        verdict = directory / case.name / agreement.VERDICT
        found = json.loads(verdict.read_text()) if verdict.exists() else {}
        if any(one["broken"] for one in found.get("collections", [])):
            yield directory / case.name / agreement.STORE


def run(stores: Sequence[Path], python: str, jobs: int, runs: int = 0) -> list[Outcome]:
    """Repair and judge each."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, Worker.start, (python, runs)) as pool:
        return list(pool.map(Worker.case, stores))


def print_table(outcomes: Sequence[Outcome]) -> None:
    """One line per fault: what became of the stores, and of their records."""
    kinds = sorted({outcome.kind for outcome in outcomes})
    print(f"| fault | stores | {' | '.join(kinds)} | wrong | records | {' | '.join(GRADES)} |")
    print("|---|" + "--:|" * (len(kinds) + len(GRADES) + 3))
    for fault in [*dict.fromkeys(outcome.fault for outcome in outcomes), "all"]:
        here = [o for o in outcomes if fault in (o.fault, "all")]
        grades = sum((o.grades for o in here), Counter[str]())
        total = grades.total()
        shares = [f"{100 * grades[grade] / total:.1f} %" if total else "" for grade in GRADES]
        counts = [str(sum(o.kind == kind for o in here)) for kind in kinds]
        wrong = sum(bool(o.wrong) for o in here)
        cells = [fault, str(len(here)), *counts, str(wrong), f"{total:,}", *shares]
        print(f"| {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stores", type=int, default=20, help="of each fault")
    parser.add_argument("--seed", type=int, default=10_000)
    parser.add_argument("--fault", action="append", choices=faults.FAULTS, help="repeatable")
    parser.add_argument("--directory", type=Path, help="where stores are kept, and used again")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=int, default=0, help="of an application, afterwards")
    parser.add_argument("--chroma-python", default=sys.executable, help="one with chromadb")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        options.directory = options.directory or Path(scratch)
        seeds = range(options.seed, options.seed + options.stores)
        names = options.fault or list(faults.FAULTS)
        cases = [agreement.Case(name, seed) for name in names for seed in seeds]
        agreement.make_all(cases, options)
        stores = list(broken_stores(options.directory, cases))
        outcomes = run(stores, options.chroma_python, options.jobs, options.runs)
    print_table(outcomes)
    for outcome in outcomes:
        for text in outcome.wrong:
            print(f"{outcome.name}: {text}")
    unfound = sum(outcome.unfound for outcome in outcomes)
    print(f"records that a search for everything passed by: {unfound}")
    return int(any(outcome.wrong for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
