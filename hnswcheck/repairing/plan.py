"""What is to be done about one collection: vectors enough, or why not; and how little is enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hnswcheck.errors import RepairRefused
from hnswcheck.findings import REGISTRY
from hnswcheck.formats.arrays import Ints
from hnswcheck.formats.segment_files import LINKS
from hnswcheck.repairing.choices import Choices
from hnswcheck.repairing.patch import choose_mend
from hnswcheck.repairing.segment_plan import SegmentRepair
from hnswcheck.replay.balance import balance_with
from hnswcheck.report import SegmentReport
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.sources import Salvaged, find_sources
from hnswcheck.store.collection_view import BEFORE_ALL, CollectionView
from hnswcheck.store.database import Database
from hnswcheck.store.documents import have_documents
from hnswcheck.store.schema import Schema
from hnswcheck.store.settings import read_embedding_function


def decide(
    database: Database,
    schema: Schema,
    view: CollectionView,
    report: SegmentReport,
    choices: Choices,
) -> SegmentRepair:
    """Find the best source for each record, and what the choices say of those without proof.

    Raises:
        StoreChanged, StoreUnreadable, SqliteDamaged: something could not be read.
    """
    none = np.zeros(0, np.int64)
    decided = SegmentRepair(
        report.collection,
        report.vector_segment or "",
        report.metadata_segment,
        report.status,
        report.error_ids,
        salvage=None,
        use=none,
        embed=none,
        leave=none,
        drop=none,
    )
    try:
        found = find_sources(database, view)
    except RepairRefused as error:
        return replace(decided, refused=str(error))
    good = np.isin(found.grades, [Grade.PROVEN, *choices.accept])
    rest = np.flatnonzero(~good)
    embed = leave = drop = none
    embedder, refused = None, ""
    if choices.embed is not None and len(rest):
        has = found.settled[rest] & have_documents(database, found.records.rowids[rest])
        embed, rest = rest[has], rest[~has]
    if choices.embed is not None and len(embed):
        try:
            function = read_embedding_function(database, schema, view.collection)
            embedder = choices.embed.embedder(function)
        except RepairRefused as error:
            refused = str(error)
    if choices.leave:
        leave, rest = rest, none
    if choices.drop:
        settled = found.settled[rest]
        drop, rest = rest[settled], rest[~settled]
    mend = None
    in_sqlite = schema.release.watermark_in == "sqlite"
    if in_sqlite and not len(rest) + len(embed) + len(leave) + len(drop):
        mend = choose_mend(view, frozenset(report.error_ids), found, database)
    refused = refused or _refusal(found, rest, choices, int(good.sum()) + len(embed) + len(leave))
    if not (refused or mend or good.any() or len(embed)):
        refused = _coming_back(view, found)
    present, _ = balance_with(view, view.folder, view.start, found.records.ids)
    return replace(
        decided,
        salvage=found,
        present=present,
        use=np.flatnonzero(good),
        embed=embed,
        leave=leave,
        drop=drop,
        mend=mend,
        refused=refused,
        embedder=embedder,
    )


def _refusal(found: Salvaged, rest: Ints, choices: Choices, kept: int) -> str:
    """Why nothing is done; empty if it is."""
    if choices.drop and not kept:
        return "no record would be left; delete the collection with Chroma instead"
    if not len(rest):
        return ""
    counts = {g.name.lower(): int(np.count_nonzero(found.grades[rest] == g)) for g in Grade}
    named = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    if choices.drop:
        return f"{len(rest):,} records ({named}) have writes in the log that Chroma applies first"
    return f"{len(rest):,} records have no proven vector ({named})"


def _coming_back(view: CollectionView, found: Salvaged) -> str:
    """Why an index without anything in it is no repair: empty if it is.

    Chroma begins such an index anew, with all that the log has.
    """
    if any(row.fault for row in view.read_all_wal()):
        return "no vector is left, and Chroma stops at rows of the log"
    anew, _ = balance_with(view, None, BEFORE_ALL, found.records.ids)
    if anew is None or not anew.phantom:
        return ""
    return (
        f"the log would bring back {len(anew.phantom):,} records that sqlite does not have;"
        " delete the collection with Chroma instead"
    )


def is_too_long(segment: SegmentReport) -> bool:
    """Whether link_lists.bin holds more than its records, which is no error."""
    return any(
        LINKS in found.sample and isinstance(found.found, int) and REGISTRY[found.id].patchable
        for found in segment.findings
        if found.severity != "error"
    )
