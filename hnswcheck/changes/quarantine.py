"""Move damaged segments out of Chroma's way, exactly, undoably, and never more than that.

Without its folder and its watermark Chroma replays what the WAL still holds of a collection into a
new index; what the WAL no longer holds is searchable again only after a repair.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from hnswcheck.auditing.request import AuditRequest
from hnswcheck.auditing.runner import audit_in_process
from hnswcheck.changes.journal import Step, perform
from hnswcheck.changes.procedure import StoreState, confirmed, settle
from hnswcheck.changes.set_aside import set_aside
from hnswcheck.changes.watermark import WatermarkChange, read_watermark
from hnswcheck.checks.ledger import check_rows
from hnswcheck.checks.sampling import Sampler
from hnswcheck.errors import UsageError, naming
from hnswcheck.formats.strings import find
from hnswcheck.isolation import call_isolated_if_open
from hnswcheck.kinds import Status
from hnswcheck.progress import Progress, silent
from hnswcheck.replay.balance import Balance, balance_with
from hnswcheck.replay.index import replay_index
from hnswcheck.replay.records import replay_records
from hnswcheck.report import CollectionInfo, Level, Report, SegmentReport
from hnswcheck.store.catalog import read_collections
from hnswcheck.store.collection_view import BEFORE_ALL, CollectionView, read_collection_views
from hnswcheck.store.database import DATABASE
from hnswcheck.store.manifest import file_prints
from hnswcheck.store.schema import read_schema
from hnswcheck.store.segment import links_in
from hnswcheck.store.view import open_store

NO_FOLDER = "it has no folder; hnswcheck restore lists what was moved"
LINKED = "its folder is a symlink, or has one; hnswcheck changes only what is in the directory"
NO_GAIN = "Chroma would gain nothing: no more records, and as many ids that are none"
SQLITE_DAMAGED = "chroma.sqlite3 itself is damaged"
WOULD_LOSE = "records would stop being searchable"
NOT_ASKED = "dry run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """A damaged segment, and what a quarantine does to it.

    Attributes:
        findings: ids of those that count as errors.
        searchable: records that stay searchable, from the WAL.
        after_repair: records that are searchable only after a repair, then.
        lost: records whose vector is nowhere; None if that cannot be told.
        phantom: ids that are no records, and that the WAL makes searchable then: of writes that
            the records never took in, or of records that somebody deleted past Chroma.
        moved_to: the folder's new name; None if it was not moved.
        kept: why it was not moved; empty if it was.
    """

    collection: CollectionInfo
    segment: str
    status: Status
    findings: tuple[str, ...]
    searchable: int
    after_repair: int
    lost: int | None
    phantom: int
    moved_to: str | None = None
    kept: str = NOT_ASKED


@dataclass(frozen=True, slots=True)
class QuarantineResult:
    """What a quarantine did, or with ``dry_run`` would do.

    Attributes:
        report: of the audit that it began with.
        segments: every damaged one among those that were asked for.
        finished: what was left of an earlier action and was finished first.
    """

    path: Path
    report: Report
    segments: tuple[Fate, ...]
    finished: tuple[str, ...] = ()

    @property
    def moved(self) -> tuple[Path, ...]:
        """The folders that were moved, where they are now."""
        return tuple(self.path / fate.moved_to for fate in self.segments if fate.moved_to)


@dataclass(frozen=True, slots=True)
class _Account:
    """What Chroma finds with the WAL alone.

    Attributes:
        searchable: records.
        phantom: ids that are no records.
        present: account 1 of the index; None if unknown.
    """

    searchable: int
    phantom: int
    present: Balance | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a quarantine would do, and to which state of the store.

    Attributes:
        wanted: ids of vector segments; None for all.
        result: of a dry run.
        accounts: by the collection's id.
    """

    request: AuditRequest
    wanted: tuple[str, ...] | None
    result: QuarantineResult
    accounts: Mapping[str, _Account]
    seen: StoreState

    def chosen(self, accept_loss: bool) -> tuple[Fate, ...]:
        """The segments that may be moved."""
        may = {NOT_ASKED, WOULD_LOSE} if accept_loss else {NOT_ASKED}
        return tuple(fate for fate in self.result.segments if fate.kept in may)


def quarantine(
    path: str | os.PathLike[str],
    collections: Iterable[str] | None = None,
    segments: Iterable[str] | None = None,
    *,
    level: Level | str = Level.STANDARD,
    dry_run: bool = False,
    accept_loss: bool = False,
    wait: float = 0.0,
    progress: Progress = silent,
) -> QuarantineResult:
    """Audit a store and move the folders of damaged segments aside; :func:`restore` undoes it.

    Only segments whose status is diverged or corrupt are moved, and of these only those whose
    records all stay searchable from the WAL, unless ``accept_loss``; none at all where Chroma
    would find no more records than now, and no fewer ids that are none. The folder is renamed
    within the persist directory, its contents untouched, with a manifest beside it; the VECTOR
    watermark goes in the same step. All of it happens, or nothing.

    Args:
        path: the persist directory.
        collections: names or ids; None for all.
        segments: ids of vector segments; None for all.
        level: of the audit, "standard" or "deep".
        dry_run: only say what would be done; writes nothing.
        accept_loss: move also where records are then not searchable before a repair.
        wait: seconds to wait for other processes to leave the store.
        progress: called as bytes are read.

    Raises:
        StoreInUse: another process has the store open.
        StoreChanged: it was written between the audit and the move.
        ActionFailed: the system refused something; the store is as it was.
        HnswcheckError: as :func:`hnswcheck.audit` does.
    """
    plan = plan_quarantine(
        path, collections, segments, level=level, dry_run=dry_run, wait=wait, progress=progress
    )
    return plan.result if dry_run else carry_out(plan, accept_loss, wait, progress)


def plan_quarantine(
    path: str | os.PathLike[str],
    collections: Iterable[str] | None,
    segments: Iterable[str] | None,
    *,
    level: Level | str,
    dry_run: bool,
    wait: float,
    progress: Progress,
) -> Plan:
    """The first half of :func:`quarantine`; unless ``dry_run``, what was left is finished first."""
    request = AuditRequest.of(path, level, collections)
    if request.level is Level.PROBE:
        raise UsageError(
            "a quarantine needs level standard or deep: counts alone do not show what it costs"
        )
    root = request.directory
    wanted = None if segments is None else tuple(segments)
    with naming(path):
        finished = () if dry_run else tuple(settle(root, wait))
        plan = call_isolated_if_open(root / DATABASE, _plan, (request, wanted), progress)
    return replace(plan, result=replace(plan.result, finished=finished))


def carry_out(plan: Plan, accept_loss: bool, wait: float, progress: Progress) -> QuarantineResult:
    """The second half of :func:`quarantine`."""
    chosen = plan.chosen(accept_loss)
    if not chosen:
        return plan.result
    plan = confirmed(
        plan, lambda: _plan_again(plan, progress), lambda plan: plan.result.segments, wait
    )
    names = _move(plan, chosen, wait, progress)
    fates = (
        replace(fate, moved_to=names[fate.segment], kept="") if fate.segment in names else fate
        for fate in plan.result.segments
    )
    return replace(plan.result, segments=tuple(fates))


def _plan_again(plan: Plan, progress: Progress) -> Plan:
    root = plan.result.path
    again: Plan = call_isolated_if_open(
        root / DATABASE, _plan, (plan.request, plan.wanted), progress
    )
    return replace(again, result=replace(again.result, finished=plan.result.finished))


def _plan(
    request: AuditRequest, segments: tuple[str, ...] | None, progress: Progress = silent
) -> Plan:
    seen = StoreState.now(request.directory)
    store = audit_in_process(request, progress)
    known = {segment.vector_segment for segment in store.segments}
    unknown = [name for name in segments or () if name not in known]
    if unknown:
        raise UsageError(f"no vector segment {unknown[0]!r} among those audited")
    damaged = [
        segment
        for segment in store.segments
        if segment.is_damaged and (segments is None or segment.vector_segment in segments)
    ]
    sqlite = store.is_database_damaged
    accounts = {} if sqlite or not damaged else _accounts(request.directory, damaged)
    fates = tuple(_fate(request.directory, segment, accounts, sqlite) for segment in damaged)
    return Plan(
        request=request,
        wanted=segments,
        result=QuarantineResult(request.directory, Report((store,)), fates),
        accounts=accounts,
        seen=seen.if_unchanged(),
    )


def _accounts(root: Path, damaged: Sequence[SegmentReport]) -> dict[str, _Account]:
    """By collection, what Chroma can search with the WAL alone, and what only the index has."""
    wanted = {segment.collection.id for segment in damaged}
    with open_store(root) as store:
        schema = read_schema(store.database)
        collections = [c for c in read_collections(store.database, schema) if c.id in wanted]
        views = read_collection_views(store, collections, schema, with_ids=True)
        return {view.collection.id: _account(view) for view in views}


def _account(view: CollectionView) -> _Account:
    rows = view.read_all_wal()
    if not view.records_known:
        return _Account(0, 0, None)
    records = replay_records(view.wal, view.metadata_start, view.record_ids())
    present, _ = balance_with(view, view.folder, view.start, records)
    dimension = view.collection.dimension
    if dimension is None or any(check_rows(rows, dimension, Sampler())):
        return _Account(0, 0, present)  # Chroma searches nothing, or stops at such a row
    replayed = replay_index(rows, BEFORE_ALL, None, None, view.opener, view.settings).present
    there = sum(replayed.values())
    searchable = len(find((id for id, there in replayed.items() if there), records))
    return _Account(searchable, there - searchable, present)


def _fate(
    root: Path, segment: SegmentReport, accounts: Mapping[str, _Account], sqlite: bool
) -> Fate:
    ledger = segment.ledger
    records = ledger.records_after_replay
    if records is None:
        records = ledger.records or 0
    account = accounts.get(segment.collection.id)
    searchable, phantom = (account.searchable, account.phantom) if account else (0, 0)
    lost = segment.recoverable.lost
    after_repair = max(0, records - searchable - (lost or 0))
    now = records - (ledger.missing or 0)  # of a segment that Chroma can read
    vector = segment.vector_segment or ""
    kept = NOT_ASKED
    if sqlite:
        kept = SQLITE_DAMAGED
    elif not (root / vector).is_dir():
        kept = NO_FOLDER
    elif links_in(root / vector):
        kept = LINKED
    elif segment.status == "diverged" and phantom >= (ledger.phantom or 0) and searchable <= now:
        kept = NO_GAIN
    elif searchable < records:
        kept = WOULD_LOSE
    return Fate(
        collection=segment.collection,
        segment=vector,
        status=segment.status,
        findings=segment.error_ids,
        searchable=searchable,
        after_repair=after_repair,
        lost=lost,
        phantom=phantom,
        kept=kept,
    )


def _move(plan: Plan, chosen: Sequence[Fate], wait: float, progress: Progress) -> dict[str, str]:
    """Move the chosen segments; their folders' new names."""
    root = plan.result.path
    reports = {s.vector_segment: s for s in plan.result.report.stores[0].segments}
    prints = {fate.segment: file_prints(root / fate.segment, progress) for fate in chosen}
    with plan.seen.hold(wait) as held:
        now = datetime.now(UTC)
        steps: list[Step] = []
        manifests: dict[str, bytes] = {}
        names: dict[str, str] = {}
        for fate in chosen:
            segment, report = fate.segment, reports[fate.segment]
            row = read_watermark(held.connection, segment)
            name, manifest = set_aside(
                held,
                segment,
                now,
                fate.collection,
                row,
                prints[segment],
                why=fate.findings,
                present=plan.accounts[fate.collection.id].present,
                searchable=fate.searchable,
                after_repair=fate.after_repair,
                report=asdict(report),
            )
            change = WatermarkChange(segment, row, None)
            steps.append(
                Step(
                    segment=segment,
                    moves=((segment, name),),
                    watermarks=(change,),
                    adds=tuple(manifest),
                )
            )
            manifests |= manifest
            names[segment] = name
        perform(held, "quarantine", steps, manifests)
    return names
