"""A damaged segment and what a repair makes of it: it is refused, planned, or repaired."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from hnswcheck.changes.quarantine import LINKED
from hnswcheck.engines.chroma import FoundChroma
from hnswcheck.formats.arrays import Ints
from hnswcheck.formats.text import text
from hnswcheck.kinds import Status
from hnswcheck.repairing.choices import ACCEPTABLE, Verify
from hnswcheck.repairing.embedder import Embedder
from hnswcheck.repairing.patch import Patch
from hnswcheck.replay.balance import Balance
from hnswcheck.report import CollectionInfo
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.reason import Reason
from hnswcheck.salvaging.sources import Salvaged
from hnswcheck.store.manifest import as_text
from hnswcheck.store.watermarks import written


class RecordGrade(NamedTuple):
    """Where the best vector of a record is, and how sure that vector is.

    Attributes:
        source: "wal", the name of a folder, "embedded" or "nowhere".
        grade: the name of a :class:`Grade`, such as "suspect".
        reason: why it has that grade: the slug of a :class:`Reason`, such as "label-twice".
    """

    id: str
    source: str
    grade: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedSegment:
    """What the audit said of a segment that needs a repair.

    Attributes:
        segment: the id of the vector segment.
        metadata_segment: the id of the collection's metadata segment.
        findings: ids of the findings that are errors.
    """

    collection: CollectionInfo
    segment: str
    metadata_segment: str | None
    status: Status
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFates:
    """Where the vector of each record is, and what becomes of the record.

    Each record is in at most one of ``use``, ``embed``, ``leave`` and ``drop``; in a plan that is
    not refused it is in exactly one.

    Attributes:
        salvage: for every record the best source of its vector, and its grade.
        use: int64, ascending: records that keep the vector that was found.
        embed: int64, ascending: records whose document is embedded again.
        leave: int64, ascending: records that stay in sqlite, but not in the index.
        drop: int64, ascending: records that are deleted.
        embedder: what embeds the documents; None if there are none to embed, or if it cannot be
            had, which refuses the repair.
    """

    salvage: Salvaged
    use: Ints
    embed: Ints
    leave: Ints
    drop: Ints
    embedder: Embedder | None = None

    @property
    def unindexed(self) -> Ints:
        """int64, ascending: records that have no vector in the new index."""
        return np.sort(np.concatenate([self.leave, self.drop]))

    @property
    def indexed(self) -> Ints:
        """int64, ascending: records that have a vector in the new index."""
        return np.sort(np.concatenate([self.use, self.embed]))

    @property
    def accepted(self) -> dict[str, tuple[str, ...]]:
        """By grade, the ids of records whose vector is used without proof."""
        grades, ids = self.salvage.grades[self.use], self.salvage.records.ids
        return {
            name: tuple(map(as_text, ids.take(self.use[grades == grade])))
            for name, grade in ACCEPTABLE.items()
            if (grades == grade).any()
        }


class _Outcome(Protocol):
    """What all three outcomes have."""

    @property
    def audited(self) -> AuditedSegment: ...

    @property
    def fates(self) -> RecordFates | None: ...


class _Described:
    """What all three outcomes say of the segment and of its records."""

    __slots__ = ()

    @property
    def collection(self: _Outcome) -> CollectionInfo:
        """The collection whose vector segment it is."""
        return self.audited.collection

    @property
    def segment(self: _Outcome) -> str:
        """The id of the vector segment."""
        return self.audited.segment

    @property
    def status(self: _Outcome) -> Status:
        """The segment's status before the repair."""
        return self.audited.status

    @property
    def findings(self: _Outcome) -> tuple[str, ...]:
        """Ids of the findings that were errors before the repair."""
        return self.audited.findings

    @property
    def grades(self: _Outcome) -> dict[str, int]:
        """How many records have a best vector of each grade, the best grade first."""
        if self.fates is None:
            return {}
        found = self.fates.salvage
        counts = {grade.name.lower(): found.count(grade) for grade in sorted(Grade, reverse=True)}
        return {name: count for name, count in counts.items() if count}

    @property
    def reasons(self: _Outcome) -> dict[Grade, dict[Reason, int]]:
        """How many records have a best vector of each grade, by the reason of the grade."""
        return {} if self.fates is None else self.fates.salvage.reasons_by_grade()

    def records(self: _Outcome) -> Iterator[RecordGrade]:
        """What was found of every record."""
        if self.fates is None:
            return
        found, embedded = self.fates.salvage, set(self.fates.embed.tolist())
        for index, id in enumerate(found.records.ids):
            source = "embedded" if index in embedded else found.source_name(index)
            grade = Grade(int(found.grades[index])).name.lower()
            reason = Reason(int(found.reasons[index])).slug
            yield RecordGrade(text(id), source, grade, reason)


@dataclass(frozen=True, slots=True)
class SegmentRefused(_Described):
    """A segment that is not repaired unless the caller chooses otherwise, if at all.

    Attributes:
        reason: why, in words.
        fates: None if nobody can tell where the vectors are.
    """

    audited: AuditedSegment
    reason: str
    fates: RecordFates | None = None

    @property
    def offers_choices(self) -> bool:
        """Whether a choice about the records without a proven vector can help."""
        return self.fates is not None and self.reason != LINKED


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPlan(_Described):
    """What a repair does to a segment.

    Attributes:
        patch: the changes to a copy of a folder that are enough; None if the index is built anew.
        present: account 1 of the old index; None if it is unknown.
        log_end: the number of the row that an empty log gets; None if it needs none.
    """

    audited: AuditedSegment
    fates: RecordFates
    patch: Patch | None
    present: Balance | None
    log_end: int | None = None

    @property
    def dimension(self) -> int:
        """The collection's; no vectors are found for a collection without one."""
        assert self.audited.collection.dimension is not None
        return self.audited.collection.dimension

    def steps(self) -> Iterator[str]:
        """What is done, a line each."""
        fates, found = self.fates, self.fates.salvage
        if self.patch is not None:
            yield from self.patch.describe()
        else:
            parts = [f"{len(fates.use):,} vectors that still exist"]
            if fates.embedder is not None:
                parts.append(
                    f"{len(fates.embed):,} documents embedded again by {fates.embedder.label}"
                )
            yield f"build a new index: {', '.join(parts)}"
        if self.log_end is not None:
            yield f"end the empty log at {self.log_end}, so that the next write is a new one"
        if found.skipped:
            yield f"pass over {found.skipped:,} unreadable rows of the log"
        if found.metadata_start is not None:
            yield f"set METADATA's watermark to {written(found.metadata_start)}"
        if len(fates.leave):
            yield f"leave {len(fates.leave):,} records out of the index"
        if len(fates.drop):
            yield f"delete {len(fates.drop):,} records after writing them to a file"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRepaired(_Described):
    """A segment that was repaired.

    Attributes:
        plan: what was done.
        replaced: the new name of the old folder; None if there was none.
        exported: the name of the file that has the deleted records; None if none was deleted.
        verified: what was content with the new index.
        not_asked: why Chroma was not asked, if nobody chose that; else empty.
        tried_by: the Chroma that was content with it; None if none was asked.
    """

    plan: SegmentPlan
    replaced: str | None
    exported: str | None
    verified: Verify
    not_asked: str = ""
    tried_by: FoundChroma | None = None

    @property
    def audited(self) -> AuditedSegment:
        """The segment as it was before."""
        return self.plan.audited

    @property
    def fates(self) -> RecordFates:
        """Where the vector of each record was, and what became of the record."""
        return self.plan.fates


#: A damaged segment, as a repair reports it.
SegmentRepair = SegmentRefused | SegmentPlan | SegmentRepaired


def segment_to_dict(segment: SegmentRepair) -> dict[str, Any]:
    """Plain values: what is done or was done, and the source and grade of every record."""
    steps: tuple[str, ...] = ()
    refused = replaced = exported = verified = not_asked = tried_by = None
    match segment:
        case SegmentRefused(reason=reason):
            refused = reason
        case SegmentPlan():
            steps = tuple(segment.steps())
        case SegmentRepaired():
            steps = tuple(segment.plan.steps())
            replaced, exported = segment.replaced, segment.exported
            verified, not_asked = segment.verified.value, segment.not_asked or None
            tried_by = segment.tried_by
    fates = segment.fates
    embedder = fates.embedder if fates else None
    return {
        "collection": asdict(segment.collection),
        "vector_segment": segment.segment,
        "status": segment.status,
        "findings": list(segment.findings),
        "grades": segment.grades,
        "reasons": {
            grade.name.lower(): {reason.slug: count for reason, count in reasons.items()}
            for grade, reasons in segment.reasons.items()
        },
        "use": len(fates.use) if fates else 0,
        "embed": len(fates.embed) if fates else 0,
        "embedder": embedder.label if embedder else None,
        "leave": len(fates.leave) if fates else 0,
        "drop": len(fates.drop) if fates else 0,
        "steps": list(steps),
        "refused": refused,
        "replaced": replaced,
        "exported": exported,
        "verified": verified,
        "not_asked": not_asked,
        "tried_by": tried_by.version if tried_by else None,
        "tried_by_line_that_wrote": tried_by.is_of_line if tried_by else None,
        "records": [list(record) for record in segment.records()],
    }
