"""Make damaged collections whole from every vector that still exists.

A new index is made beside the old folder from the vectors that :mod:`hnswcheck.salvaging.sources`
found. It takes the old folder's place under the same journal that a quarantine uses, and is
verified there. The old folder becomes a quarantined one, so that a restore undoes the repair.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hnswcheck.auditing.request import AuditRequest
from hnswcheck.auditing.runner import audit_in_process
from hnswcheck.changes.lock import reading
from hnswcheck.changes.procedure import StoreState, confirmed, settle
from hnswcheck.errors import HnswcheckError, RepairFailed, RepairRefused, naming
from hnswcheck.formats.text import path_text
from hnswcheck.progress import Progress, silent
from hnswcheck.repairing.build_index import check_hnswlib
from hnswcheck.repairing.choices import Choices, Verify
from hnswcheck.repairing.embed_documents import embedded
from hnswcheck.repairing.embedder import BATCH, Embed, Embedding, Own
from hnswcheck.repairing.plan import is_too_long, plan_segment
from hnswcheck.repairing.segment_plan import (
    SegmentPlan,
    SegmentRefused,
    SegmentRepair,
    SegmentRepaired,
    segment_to_dict,
)
from hnswcheck.repairing.swap import swap_segment
from hnswcheck.repairing.verification import DEFAULT_WISH, Wish, how_to_verify, wanted
from hnswcheck.report import Level, Report, SegmentReport
from hnswcheck.salvaging.counts import counted
from hnswcheck.store.catalog import read_collections
from hnswcheck.store.collection_view import read_collection_views
from hnswcheck.store.schema import read_schema
from hnswcheck.store.view import open_store

SCHEMA_ID = "hnswcheck.repair/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What a repair did, or with ``dry_run`` would do.

    Attributes:
        before: the audit that it began with.
        segments: every damaged segment that was asked for: refused, planned or repaired.
        after: the audit that it ended with; None if nothing was done.
        finished: what a stopped action had left, and was finished first; a line per segment.
    """

    path: Path
    before: Report
    segments: tuple[SegmentRepair, ...]
    after: Report | None = None
    finished: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values: both audits, and for every record id, source, grade and reason.

        ``reasons`` counts the records by grade and reason, and ``legend`` has the sentence of each
        reason that occurs.
        """
        return {
            "schema": SCHEMA_ID,
            "path": path_text(self.path),
            "before": self.before.to_dict(),
            "after": self.after.to_dict() if self.after else None,
            "finished": list(self.finished),
            "verified": self.verified,
            "tried_by": self.tried_by,
            "legend": self._legend(),
            "segments": [segment_to_dict(segment) for segment in self.segments],
        }

    def _legend(self) -> dict[str, str]:
        """The sentence of every reason that occurs, by its slug."""
        by_grade = (reasons for segment in self.segments for reasons in segment.reasons.values())
        found = sorted({reason for reasons in by_grade for reason in reasons}, reverse=True)
        return {reason.slug: reason.sentence for reason in found}

    @property
    def verified(self) -> str | None:
        """What was content with every new index: "none", "audit" or "chroma"; None without any."""
        ways = [segment.verified for segment in self.repaired]
        return min(ways, key=list(Verify).index).value if ways else None

    @property
    def tried_by(self) -> str | None:
        """The version of the Chroma that was content with every new index; None if none was."""
        tried = {one.tried_by.version if one.tried_by else None for one in self.repaired}
        return tried.pop() if len(tried) == 1 else None

    @property
    def refused(self) -> tuple[SegmentRefused, ...]:
        """The segments for which the caller has to choose something first."""
        return tuple(one for one in self.segments if isinstance(one, SegmentRefused))

    @property
    def planned(self) -> tuple[SegmentPlan, ...]:
        """The segments that would be repaired."""
        return tuple(one for one in self.segments if isinstance(one, SegmentPlan))

    @property
    def repaired(self) -> tuple[SegmentRepaired, ...]:
        """The segments that were repaired."""
        return tuple(one for one in self.segments if isinstance(one, SegmentRepaired))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a repair would do, and to which state of the store.

    Attributes:
        report: of a dry run.
        wish: what the caller wants to be content with the result.
    """

    report: RepairReport
    seen: StoreState
    wish: Wish = DEFAULT_WISH


def repair(
    path: str | os.PathLike[str],
    collections: Iterable[str] | None = None,
    *,
    accept: Iterable[str] = (),
    leave_unindexed: bool = False,
    drop_records: bool = False,
    embed: Embed | Own | None = None,
    batch: int = BATCH,
    dry_run: bool = False,
    wait: float = 0.0,
    progress: Progress = silent,
    verify: str | None = None,
    chroma_python: str | os.PathLike[str] | None = None,
) -> RepairReport:
    """Make damaged collections whole from every vector that still exists.

    For every record, a repair finds the best source of its vector: the log, the segment's own
    folder, or folders that were moved aside. A vector that is proven to be the record's own is
    used. A record without a proven vector stops the repair, unless ``accept``, ``embed``,
    ``leave_unindexed`` or ``drop_records`` say what to do about it. Then a new index takes the
    place of the old one: a patched copy of a folder if that is enough, else one that is built with
    the collection's own settings. :func:`restore` can put the old folder back.

    Args:
        path: the persist directory.
        collections: names or ids; None for all.
        accept: grades that are good enough without proof: "inferred", "unconfirmed", "outdated",
            "suspect".
        leave_unindexed: records without an acceptable vector stay, but not in the index.
        drop_records: records without an acceptable vector are deleted, after they are written to a
            file of JSON lines in the persist directory. A restore does not bring them back.
        embed: embeds the documents of records without an acceptable vector: a function from a list
            of texts to as many vectors; "own" for the function that Chroma keeps with each
            collection (needs chromadb 1.0 or newer); or a class of embedding functions, for a
            collection that keeps one which chromadb does not know. After an error or an interrupt
            the next run takes the vectors that were made from $XDG_CACHE_HOME (~/.cache), if it
            recognises the function by module and name.
        batch: number of documents that ``embed`` gets at a time.
        dry_run: only say what would be done; writes nothing.
        wait: seconds to wait for other processes to close the store.
        progress: called as the store is read, documents are embedded and vectors are indexed.
        verify: what must be content with a new index, else the old one comes back: "none"; "audit"
            at level deep; or "chroma", an audit and then chromadb, which reads, searches and
            writes a copy. The default is "chroma" if it can be asked, else "audit".
        chroma_python: the interpreter whose chromadb is asked, as one of the release that uses the
            store; None for this one. Who names one wants "chroma".

    Raises:
        RepairRefused: records have no proven vector and nothing says what to do, the embedding
            function failed, or the damage is not in the index. Nothing was changed.
        RepairFailed: the result was not right; the store is as it was.
        EngineMissing: hnswlib, or the chromadb that ``verify`` asks for, cannot be used.
        StoreInUse, StoreChanged, ActionFailed: nothing was changed.
        HnswcheckError: as :func:`hnswcheck.audit` does.
    """
    wish = None if embed is None else Embedding.of(embed, batch)
    choices = Choices.of(accept, leave_unindexed, wish, drop_records)
    plan = plan_repair(
        path,
        collections,
        choices,
        dry_run=dry_run,
        wait=wait,
        wish=wanted(verify, chroma_python),
        progress=progress,
    )
    return plan.report if dry_run else carry_out(plan, choices, wait, progress)


def plan_repair(
    path: str | os.PathLike[str],
    collections: Iterable[str] | None,
    choices: Choices,
    *,
    dry_run: bool,
    wait: float,
    wish: Wish = DEFAULT_WISH,
    progress: Progress = silent,
) -> Plan:
    """The first half of :func:`repair`: the plan.

    Unless ``dry_run``, what a stopped action left is finished first.
    """
    request = AuditRequest.of(path, Level.STANDARD, collections)
    root = request.directory
    with naming(path):
        finished = () if dry_run else tuple(settle(root, wait))
        with reading(root):
            plan = _plan(request, choices, progress)
    return replace(plan, report=replace(plan.report, finished=finished), wish=wish)


def _plan(request: AuditRequest, choices: Choices, progress: Progress = silent) -> Plan:
    root = request.directory
    seen = StoreState.now(root)
    audited = audit_in_process(replace(request, salvages=False), progress)
    if audited.is_database_damaged:
        raise RepairRefused(f"{root}: chroma.sqlite3 itself is damaged; recover that first")
    reports = {segment.collection.id: segment for segment in audited.segments}
    segments = tuple(_plan_segments(root, reports, choices))
    audited = replace(audited, segments=tuple(reports.values()))
    planned = RepairReport(path=root, before=Report((audited,)), segments=segments)
    return Plan(planned, seen.if_unchanged())


def _plan_segments(
    root: Path, reports: dict[str, SegmentReport], choices: Choices
) -> Iterator[SegmentRefused | SegmentPlan]:
    """A plan for each damaged segment, and for each that a smaller change makes better.

    Args:
        reports: of the audit, by the collection's id; they get to know what is recoverable.
    """
    wanted = {id for id, one in reports.items() if one.is_damaged or is_too_long(one)}
    if not wanted:
        return
    with open_store(root) as store:
        schema = read_schema(store.database)
        collections = [c for c in read_collections(store.database, schema) if c.id in wanted]
        for view in read_collection_views(store, collections, schema, with_ids=True):
            report = reports[view.collection.id]
            segment = plan_segment(store.database, schema, view, report, choices)
            if not report.is_damaged:
                if isinstance(segment, SegmentPlan) and segment.patch is not None:
                    yield segment
                continue
            if segment.fates is not None:
                where = counted(segment.fates.salvage, view)
                reports[view.collection.id] = replace(report, recoverable=where)
            yield segment


def _plan_again(plan: Plan, choices: Choices) -> Plan:
    root = plan.report.path
    damaged = tuple(segment.collection.id for segment in plan.report.segments)
    with naming(root), reading(root):
        again = _plan(AuditRequest(directory=root, collections=damaged), choices)
    return replace(
        again, report=replace(plan.report, segments=again.report.segments), wish=plan.wish
    )


def _intent(plan: Plan) -> object:
    return plan.report.to_dict()["segments"]


def carry_out(plan: Plan, choices: Choices, wait: float, progress: Progress) -> RepairReport:
    """The second half of :func:`repair`: the plan is carried out, and the result audited."""
    report, root = plan.report, plan.report.path
    if report.refused:
        said = "; ".join(f"{one.collection.name}: {one.reason}" for one in report.refused)
        raise RepairRefused(f"{root}: nothing was changed: {said}")
    if not report.segments:
        return replace(report, after=_audited(root))
    plan = confirmed(plan, lambda: _plan_again(plan, choices), _intent, wait)
    report, seen = plan.report, plan.seen
    how = how_to_verify(root, plan.wish, report.planned)
    if any(len(segment.fates.embed) for segment in report.planned):
        check_hnswlib()  # before anybody pays for embedding
    done: list[SegmentRepaired] = []
    with embedded(root, report.planned, choices.embed, progress) as made:
        for segment in report.planned:
            new = made.get(segment.segment)
            swap = partial(swap_segment, embedded=new, how=how, wait=wait, progress=progress)
            with _telling(done):
                done.append(_swap_or_rebuild(segment, seen, swap))
            if new is not None:
                new.kept.remove()
            seen = StoreState.now(root)
    return replace(report, segments=tuple(done), after=_audited(root))


def _swap_or_rebuild(
    segment: SegmentPlan,
    seen: StoreState,
    swap: Callable[[SegmentPlan, StoreState], SegmentRepaired],
) -> SegmentRepaired:
    """Repair a segment as planned; if a patch does not come out right, with a new index."""
    try:
        return swap(segment, seen)
    except RepairFailed:
        if segment.patch is None:
            raise
    return swap(replace(segment, patch=None), StoreState.now(seen.root))


@contextmanager
def _telling(done: Sequence[SegmentRepaired]) -> Iterator[None]:
    """An error says which collections were repaired before it."""
    try:
        yield
    except HnswcheckError as error:
        if not done:
            raise
        names = ", ".join(
            f"{one.collection.name} (undone by restore --quarantine {one.replaced})"
            if one.replaced
            else one.collection.name
            for one in done
        )
        raise error.saying(f"{error}; but for what was repaired before: {names}") from error


def _audited(root: Path) -> Report:
    """An audit of all collections, whichever were repaired."""
    with naming(root), reading(root):
        return Report((audit_in_process(AuditRequest(directory=root)),))
