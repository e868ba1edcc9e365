"""Make a broken collection whole from every vector that still exists.

A new index is built beside the old folder from what :mod:`hnswcheck.checks.salvage` found, takes
its place under the same journal that a quarantine uses, and is audited there. The old folder
becomes a quarantined one, so that a restore undoes the repair.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hnswcheck.actions.choices import Choices, Embed, SegmentRepair
from hnswcheck.actions.exchange import exchange
from hnswcheck.actions.hold import reading, segment_folders, states_if_quiet
from hnswcheck.actions.quarantine import OF_SQLITE, settle
from hnswcheck.apart import Progress, silent
from hnswcheck.audit import Question, examine, naming
from hnswcheck.checks.proof import Grade
from hnswcheck.checks.salvage import salvage
from hnswcheck.disk.catalog import read_collections, read_schema
from hnswcheck.disk.database import Database
from hnswcheck.disk.records import read_documents
from hnswcheck.disk.text import path_text
from hnswcheck.disk.view import States, open_store
from hnswcheck.errors import RepairRefused
from hnswcheck.report import Level, Report, SegmentReport
from hnswcheck.target import Target, read_targets

SCHEMA_ID = "hnswcheck.repair/1"


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair did, or with ``dry_run`` would do.

    Attributes:
        before: the audit that it began with.
        after: the audit that it ended with; None if nothing was done.
        finished: what was left of an earlier action and was finished first.
    """

    path: Path
    before: Report
    segments: tuple[SegmentRepair, ...]
    after: Report | None = None
    finished: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values: both audits, and for every record the source and the grade."""
        return {
            "schema": SCHEMA_ID,
            "path": path_text(self.path),
            "before": self.before.to_dict(),
            "after": self.after.to_dict() if self.after else None,
            "finished": list(self.finished),
            "segments": [
                {
                    "collection": asdict(segment.collection),
                    "vector_segment": segment.segment,
                    "status": segment.status,
                    "findings": list(segment.findings),
                    "grades": segment.grades,
                    "use": len(segment.use),
                    "embed": len(segment.embed),
                    "leave": len(segment.leave),
                    "refused": segment.refused or None,
                    "replaced": segment.replaced,
                    "records": [list(record) for record in segment.records()],
                }
                for segment in self.segments
            ],
        }

    @property
    def refused(self) -> tuple[SegmentRepair, ...]:
        """The collections for which a choice has to be made first."""
        return tuple(segment for segment in self.segments if segment.refused)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a repair would do, and what shows that it is still true."""

    report: RepairReport
    folders: tuple[Path, ...]
    states: States | None


def repair(
    path: str | os.PathLike[str],
    collections: Iterable[str] | None = None,
    *,
    accept: Iterable[str] = (),
    leave_unindexed: bool = False,
    embed: Embed | None = None,
    dry_run: bool = False,
    wait: float = 0.0,
    progress: Progress = silent,
) -> RepairReport:
    """Make the damaged collections of a store whole, without embedding what still exists.

    For every record the best source of its vector is found: the log, the segment's own folder,
    folders that were moved aside. Where it is proven to be the record's own, it is used. What has
    no proven vector stops the repair, unless ``accept``, ``embed`` or ``leave_unindexed`` say what
    to do. Then a new index with the collection's own settings takes the old one's place, and the
    old folder is kept as a quarantine that :func:`restore` can put back.

    Args:
        path: the persist directory.
        collections: names or ids; None for all.
        accept: grades to take for lack of a proven vector: "inferred", "unconfirmed", "outdated",
            "suspect".
        leave_unindexed: records without a vector stay so.
        embed: from documents to vectors; for records without an acceptable vector.
        dry_run: only say what would be done; writes nothing.
        wait: seconds to wait for other processes to leave the store.
        progress: called as vectors are indexed.

    Raises:
        RepairRefused: records have no proven vector, and nothing says what to do; or the damage is
            not in the index. Nothing was changed.
        RepairFailed: the result was not consistent; the store is as it was.
        EngineMissing: the extra ``repair`` is not installed.
        StoreInUse, StoreChanged, ActionFailed: nothing was changed.
        HnswcheckError: as :func:`hnswcheck.audit` does.
    """
    choices = Choices.of(accept, leave_unindexed, embed)
    plan = plan_repair(path, collections, choices, dry_run=dry_run, wait=wait)
    return plan.report if dry_run else carry_out(plan, choices, wait, progress)


def plan_repair(
    path: str | os.PathLike[str],
    collections: Iterable[str] | None,
    choices: Choices,
    *,
    dry_run: bool,
    wait: float,
) -> Plan:
    """The first half of :func:`repair`; unless ``dry_run``, what was left is finished first."""
    question = Question.of(path, Level.STANDARD, collections)
    root = question.directory
    with naming(path):
        finished = () if dry_run else tuple(settle(root, wait))
        with reading(root):
            plan = _plan(question, choices)
    return replace(plan, report=replace(plan.report, finished=finished))


def _plan(question: Question, choices: Choices) -> Plan:
    root = question.directory
    folders = tuple(segment_folders(root))
    before = states_if_quiet(root, folders)
    store = examine(question)
    damaged = {segment.collection.id: segment for segment in store.segments if segment.is_damaged}
    if any(found.id == OF_SQLITE for found in store.findings):
        raise RepairRefused(f"{root}: chroma.sqlite3 itself is damaged; recover that first")
    segments: list[SegmentRepair] = []
    if damaged:
        with open_store(root) as view:
            schema = read_schema(view.database)
            wanted = [c for c in read_collections(view.database, schema) if c.id in damaged]
            for target in read_targets(view, wanted, schema, with_ids=True):
                report = damaged[target.collection.id]
                segments.append(_decide(view.database, target, report, choices))
    now = states_if_quiet(root, folders)
    planned = RepairReport(root, Report((store,)), tuple(segments))
    return Plan(planned, folders, before if before == now else None)


def _decide(
    database: Database,
    target: Target,
    report: SegmentReport,
    choices: Choices,
) -> SegmentRepair:
    none = np.zeros(0, np.int64)
    vector = report.vector_segment or ""
    decided = SegmentRepair(
        report.collection, vector, report.status, report.error_ids, None, none, none, none
    )
    try:
        found = salvage(database, target)
    except RepairRefused as error:
        return replace(decided, refused=str(error))
    good = np.isin(found.grades, [Grade.PROVEN, *choices.accept])
    rest = np.flatnonzero(~good)
    embed = leave = none
    if choices.embed is not None and len(rest):
        documents = read_documents(database, found.records.rowids[rest])
        has = np.array([int(rowid) in documents for rowid in found.records.rowids[rest]], bool)
        embed, rest = rest[has], rest[~has]
    if choices.leave:
        leave, rest = rest, none
    refused = ""
    if len(rest):
        counts = {g.name.lower(): int(np.count_nonzero(found.grades[rest] == g)) for g in Grade}
        named = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        refused = f"{len(rest):,} records have no proven vector ({named})"
    return replace(
        decided,
        salvage=found,
        use=np.flatnonzero(good),
        embed=embed,
        leave=leave,
        refused=refused,
    )


def carry_out(plan: Plan, choices: Choices, wait: float, progress: Progress) -> RepairReport:
    """The second half of :func:`repair`."""
    report = plan.report
    if report.refused:
        said = "; ".join(f"{s.collection.name}: {s.refused}" for s in report.refused)
        raise RepairRefused(f"{report.path}: nothing was changed: {said}")
    if not report.segments:
        return replace(report, after=report.before)
    done: list[SegmentRepair] = []
    folders, states = plan.folders, plan.states
    for segment in report.segments:
        done.append(exchange(report.path, segment, choices, folders, states, wait, progress))
        folders = tuple(segment_folders(report.path))
        states = states_if_quiet(report.path, folders)
    with reading(report.path):
        after = Report((examine(Question(report.path)),))
    return replace(report, segments=tuple(done), after=after)
