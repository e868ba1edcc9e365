"""The audit of a persist directory: what is read in which order, and again if it changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from hnswcheck.auditing.deep import bytes_to_read, deep
from hnswcheck.auditing.probe import probe
from hnswcheck.auditing.request import AuditRequest
from hnswcheck.auditing.segment_report import segment_report
from hnswcheck.auditing.standard import SOUND, standard
from hnswcheck.checks.directory import check_folders, check_segment_path, check_segment_rows
from hnswcheck.checks.openers import Head, check_opener, opened_by, releases_that_open
from hnswcheck.checks.sampling import Sampler
from hnswcheck.checks.sqlite import sqlite_faults
from hnswcheck.checks.system_tables import catalogue_faults, check_migrations
from hnswcheck.errors import (
    HnswcheckError,
    RecordsMoved,
    SqliteDamaged,
    StoreChanged,
    StoreUnreadable,
)
from hnswcheck.findings import REGISTRY
from hnswcheck.formats.text import path_text
from hnswcheck.kinds import FindingId
from hnswcheck.progress import Progress, silent
from hnswcheck.report import (
    ChromaInfo,
    Finding,
    Level,
    SegmentReport,
    StoreReport,
    Verdict,
    as_read_by,
    finding,
)
from hnswcheck.salvaging.counts import recoverable
from hnswcheck.store.catalog import (
    ELSEWHERE,
    PERSISTED_TYPE,
    Collection,
    read_collections,
    select_collections,
)
from hnswcheck.store.collection_view import CollectionView, read_collection_views
from hnswcheck.store.files import FileState, list_directory
from hnswcheck.store.schema import Schema, read_schema
from hnswcheck.store.segment import open_segment, segment_folder
from hnswcheck.store.system_tables import Surroundings, read_discarded, read_surroundings
from hnswcheck.store.view import CopyOutdated, StoreView, open_store

T = TypeVar("T")
Around = tuple[Schema, Surroundings]

#: How long a store that others write to is read again, with pauses that double.
PATIENCE_SECONDS, PAUSE_SECONDS = 8.0, 0.05

#: A segment written this recently may be in the middle of a flush: damage must still be there,
#: with nothing written in between, after as long a wait.
REST_SECONDS = 1.0


def report_of_failure(
    path: str | os.PathLike[str], level: Level, error: HnswcheckError
) -> StoreReport:
    """The report of a store that raised ``error`` instead of giving one."""
    assert error.finding
    found = _Found(None, [finding(error.finding, 1, [path_text(str(error))])], [])
    return _store_report(path, level, found, 0.0)


def audit_in_process(request: AuditRequest, progress: Progress = silent) -> StoreReport:
    """An audit in this process, which must not have the database open.

    Raises:
        HnswcheckError: nothing could be read.
    """
    started = time.monotonic()
    directory, level = request.directory, request.level
    while True:
        with open_store(directory) as store:
            try:
                found = _Audit(store, request, progress).run()
            except CopyOutdated as error:
                if time.monotonic() > started + PATIENCE_SECONDS:
                    raise StoreChanged(str(error)) from error
            else:
                return _store_report(directory, level, found, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class _Found:
    chroma: ChromaInfo | None
    findings: list[Finding]
    segments: list[SegmentReport]


def _store_report(
    path: str | os.PathLike[str], level: Level, found: _Found, elapsed: float
) -> StoreReport:
    findings = found.findings + [f for segment in found.segments for f in segment.findings]
    kinds = {REGISTRY[f.id] for f in findings}
    unsure = any(segment.status == "undecided" for segment in found.segments)
    complete = not (unsure or any(kind.undecides for kind in kinds))
    verdict: Verdict = "consistent" if complete else "undecided"
    if any(kind.severity == "error" for kind in kinds):
        verdict = "damaged"
    own, segments = tuple(found.findings), tuple(found.segments)
    return StoreReport(
        path=path_text(Path(path)),
        verdict=verdict,
        level=level,
        complete=complete,
        elapsed_seconds=elapsed,
        chroma=found.chroma,
        findings=own,
        segments=segments,
    )


class _Audit:
    """One audit of one open store."""

    def __init__(self, store: StoreView, request: AuditRequest, progress: Progress) -> None:
        self.store = store
        self.request = request
        self.level = request.level
        self.sampler = Sampler(request.all_ids)
        self.progress = progress
        self.heads: dict[str, Head] = {}

    def run(self) -> _Found:
        listing = list_directory(self.store.root)
        with self.store.database.snapshot():
            schema = read_schema(self.store.database)
        collections = self._collections(schema)
        selected = select_collections(collections, self.request.collections)
        findings = list(self._check_store(listing, collections))
        reports: dict[str, SegmentReport] = {}
        readable_by = None
        try:
            with self.store.standing_still():
                around = self._around()
                findings += self._check_catalogue(around)
                findings += self._check_opener(around)
                schema = opened_by(*around, self.request.release)
                reports = self._judge_all(selected, schema)
                readable_by = releases_that_open(*around, self.heads.values())
            findings += self._check_sqlite()
        except HnswcheckError as error:
            if error.finding is None:  # not about the store
                raise
            findings.append(finding(error.finding, 1, [path_text(str(error))]))
        chroma = ChromaInfo(
            line=schema.writer.line,
            releases=schema.releases,
            migrations=dict(schema.migrations),
            judged_for=self.request.release,
            readable_by=readable_by,
        )
        segments = [reports[c.id] for c in selected if c.id in reports]
        reader = schema.opener.reader
        segments = [replace(s, findings=as_read_by(reader, s.findings)) for s in segments]
        return _Found(chroma, list(as_read_by(reader, findings)), segments)

    def _collections(self, schema: Schema) -> Sequence[Collection]:
        """All collections.

        Chroma makes and drops their rows in several transactions, so one that lacks a segment is
        looked at again.
        """

        def read() -> Sequence[Collection]:
            with self.store.database.snapshot():
                return read_collections(self.store.database, schema)

        found = read()
        lacking = {c.id for c in found if not (c.vector and c.metadata)}
        if not lacking:
            return found
        self._let_database_rest()
        return [c for c in read() if (c.vector and c.metadata) or c.id in lacking]

    def _let_database_rest(self) -> None:
        time.sleep(max(0.0, REST_SECONDS - self.store.quiet_seconds()))

    def _around(self) -> Around:
        with self.store.database.snapshot():
            schema = read_schema(self.store.database)
            return schema, read_surroundings(self.store.database, schema)

    def _check_catalogue(self, around: Around) -> Iterator[Finding]:
        def check(schema: Schema, seen: Surroundings) -> Iterator[str]:
            return catalogue_faults(seen, schema)

        yield from check_migrations(around[0], self.sampler)
        if faults := self._lasting(around, check):
            yield finding("catalogue-invalid", len(faults), self.sampler.places(faults))

    def _check_opener(self, around: Around) -> Iterator[Finding]:
        def check(schema: Schema, seen: Surroundings) -> Iterator[Finding]:
            return check_opener(seen, schema, self.request.release, self.sampler)

        yield from self._lasting(around, check)

    def _lasting(
        self, around: Around, check: Callable[[Schema, Surroundings], Iterable[T]]
    ) -> Sequence[T]:
        """What a check finds, and finds again once the database has been left alone."""
        found = list(check(*around))
        if not found:
            return found
        self._let_database_rest()
        return [one for one in check(*self._around()) if one in found]

    def _check_sqlite(self) -> Iterator[Finding]:
        faults = list(sqlite_faults(self.store.root)) if self.level is Level.DEEP else []
        if faults:
            yield finding("sqlite-damaged", len(faults), self.sampler.places(faults))

    def _check_store(
        self, listing: Sequence[FileState], collections: Sequence[Collection]
    ) -> Iterator[Finding]:
        segments = {s.id for c in collections for s in (c.vector, c.metadata) if s}
        discarded = read_discarded(self.store.database)
        yield from check_folders(listing, segments, discarded, self.sampler)
        yield from check_segment_rows(collections, self.sampler)

    def _judge_all(
        self, collections: Sequence[Collection], schema: Schema
    ) -> dict[str, SegmentReport]:
        """Judge all at once; if anything changed meanwhile, one by one."""
        auditable = [c for c in collections if c.vector and c.metadata]
        reports = self._judge_together(auditable, schema)
        if reports is not None:
            return reports
        until = time.monotonic() + PATIENCE_SECONDS
        judged = {c.id: self._judge_patiently(c, schema, until) for c in auditable}
        return {key: report for key, report in judged.items() if report is not None}

    def _judge_together(
        self, collections: Sequence[Collection], schema: Schema
    ) -> dict[str, SegmentReport] | None:
        """Reports that are all true of one moment, or None."""
        folders = [path for c in collections if (path := segment_folder(self.store.root, c))]
        try:
            before = self.store.moment(folders)
            now = {c.id: c for c in read_collections(self.store.database, schema)}
            if any(now.get(c.id) != c for c in collections):
                return None
            meter = _Meter(self.progress, folders, self.level)
            views = read_collection_views(
                self.store, collections, schema, self.level is not Level.PROBE
            )
            reports = {one.collection.id: self._judge(one, meter) for one in views}
            if not all(map(_may_be_trusted_at_once, reports.values())):
                time.sleep(max(0.0, REST_SECONDS - self.store.quiet_seconds(folders)))
            return reports if self.store.moment(folders) == before else None
        except RecordsMoved as error:
            if self.store.moment(folders) == before:  # nobody writes: the table contradicts itself
                raise SqliteDamaged("table embeddings and its index disagree") from error
            return None
        except StoreChanged:
            return None

    def _judge_patiently(
        self, collection: Collection, schema: Schema, until: float
    ) -> SegmentReport | None:
        pause = PAUSE_SECONDS
        while True:
            try:
                return self._judge_alone(collection, schema, until)
            except StoreChanged:
                if time.monotonic() + pause > until:
                    break
            time.sleep(pause)
            pause *= 2
        (view,) = read_collection_views(self.store, [collection], schema, with_ids=False)
        return segment_report(view, [finding("store-changed")])

    def _judge_alone(
        self, collection: Collection, schema: Schema, until: float
    ) -> SegmentReport | None:
        """A report that is true of one moment, while others go on writing.

        None for a collection that was dropped meanwhile.

        What sqlite says is read in one transaction; the files must stand still from before it
        until they have been read.

        Raises:
            StoreChanged: they did not.
        """
        folder = segment_folder(self.store.root, collection)
        folders = [folder] if folder else []
        before = self.store.moment_of_files(folders)
        with self.store.database.snapshot():
            now = read_collections(self.store.database, schema, collection.id)
            if not all(c.vector and c.metadata for c in now):
                raise StoreChanged("the collection is being dropped")
            with_ids = self.level is not Level.PROBE
            views = [
                one.with_ids() for one in read_collection_views(self.store, now, schema, with_ids)
            ]
            version = self.store.database.version()
        if not views:
            return None
        report = self._judge(views[0], _Meter(self.progress, folders, self.level))
        if self.store.moment_of_files(folders) != before:
            raise StoreChanged("a segment changed while it was read")
        if not _may_be_trusted_at_once(report):
            early = REST_SECONDS - self.store.quiet_seconds(folders)
            if early > 0 or self.store.database.version() != version:
                time.sleep(max(0.0, min(early, until - time.monotonic())))
                raise StoreChanged("a flush may be under way")
        return report

    def _judge(self, view: CollectionView, meter: _Meter) -> SegmentReport:
        is_written = view.metadata_watermark is not None
        self.heads[view.collection.id] = Head(view.peek, is_written)
        vector = view.collection.vector
        assert vector is not None
        if vector.type != PERSISTED_TYPE:
            elsewhere = vector.type in ELSEWHERE
            kind: FindingId = "segment-not-persisted" if elsewhere else "segment-type-unknown"
            return segment_report(view, [finding(kind, 1, (), PERSISTED_TYPE, vector.type)])
        unsafe = list(check_segment_path(self.store.root, vector.id))
        if unsafe or view.folder is None:
            return segment_report(view, unsafe)
        meter.what = view.collection.name
        try:
            if view.unreadable is not None:
                raise StoreUnreadable(view.unreadable)
            folder = open_segment(view.folder)
            if self.level is Level.PROBE:
                return probe(view, folder)
            if self.level is Level.DEEP:
                report = deep(view, folder, self.store.database, self.sampler, meter.advance)
            else:
                report = standard(view, folder, self.sampler, meter.advance)
            if self.request.salvages and report.status not in SOUND and not folder.irregular:
                written = self._as_written(view)
                return replace(report, recoverable=recoverable(self.store.database, written))
            return report
        except StoreUnreadable as error:
            return segment_report(view, [finding(error.finding, 1, [path_text(str(error))])])
        except MemoryError as error:
            says = f"not enough memory: {error}"
            return segment_report(view, [finding(StoreUnreadable.finding, 1, [says])])

    def _as_written(self, view: CollectionView) -> CollectionView:
        """The view of who repairs: by the ways of the line that wrote the store."""
        if view.opener is view.writer:
            return view
        schema = read_schema(self.store.database)
        (written,) = read_collection_views(self.store, [view.collection], schema, with_ids=True)
        return written


def _may_be_trusted_at_once(report: SegmentReport) -> bool:
    """Damage, and what looks like a cut flush, may be a flush that is just being written."""
    passing = any(REGISTRY[found.id].passing for found in report.findings)
    return report.status in ("empty", "consistent", "lagging") and not passing


class _Meter:
    """Adds up bytes for a progress listener."""

    def __init__(self, progress: Progress, folders: Sequence[Path], level: Level) -> None:
        self.progress = progress
        self.done = 0
        self.total = 0
        self.what = ""
        if progress is not silent:
            self.total = sum(bytes_to_read(open_segment(folder), level) for folder in folders)

    def advance(self, count: int) -> None:
        self.done += count
        self.progress(self.done, self.total, self.what)
