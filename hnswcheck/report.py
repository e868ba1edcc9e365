"""What an audit says: frozen values, and their JSON form ``hnswcheck.report/1``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import Meta

from hnswcheck._version import __version__
from hnswcheck.errors import FormatError, UsageError
from hnswcheck.findings import REGISTRY
from hnswcheck.json_documents import read_document, schema_of
from hnswcheck.kinds import SEVERITIES, FindingId, Kind, Reader, Severity, Status

SchemaId = Literal["hnswcheck.report/1"]
SCHEMA_ID: SchemaId = "hnswcheck.report/1"

Verdict = Literal["consistent", "damaged", "undecided"]
#: What a finding expected and found: something JSON can say.
Fact = str | int | float | None
#: ``$`` alone lets a newline follow, in Python.
FINDING_ID = r"^[a-z0-9]+(-[a-z0-9]+)*$(?!\n)"
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Level(StrEnum):
    """How much is read. Each level contains the one before."""

    PROBE = "probe"
    STANDARD = "standard"
    DEEP = "deep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong or worth knowing, about a store or a segment.

    Attributes:
        count: exactly how many are affected.
        sample: ids (or places) of some of them, of all if all were asked for.
    """

    id: Annotated[str, Meta(pattern=FINDING_ID)]
    severity: Severity
    title: str
    count: Count
    sample: tuple[str, ...]
    expected: Fact
    found: Fact
    consequence: str
    remedy: str

    @property
    def kind(self) -> Kind | None:
        """Its entry in the registry; None for a finding that only a newer version knows."""
        return REGISTRY.get(self.id)

    @property
    def undecides(self) -> bool:
        """Whether no verdict is possible with it; False where this version does not know it."""
        return self.kind is not None and self.kind.undecides


def finding(
    kind: FindingId,
    count: int = 1,
    sample: Sequence[str] = (),
    expected: Fact = None,
    found: Fact = None,
) -> Finding:
    """A finding of the registry."""
    entry = REGISTRY[kind]
    return Finding(
        id=entry.id,
        severity=entry.severity,
        title=entry.title,
        count=count,
        sample=tuple(sample),
        expected=expected,
        found=found,
        consequence=entry.consequence,
        remedy=entry.remedy,
    )


def as_read_by(reader: Reader, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The same findings, with what a Chroma that has this reader does with them."""
    return tuple(
        replace(found, consequence=REGISTRY[found.id].consequence_in(reader)) for found in findings
    )


@dataclass(frozen=True, slots=True)
class Pending:
    """WAL rows past the replay start, by operation."""

    add: Count = 0
    update: Count = 0
    upsert: Count = 0
    delete: Count = 0

    @property
    def total(self) -> int:
        """All rows, whatever they do."""
        return self.add + self.update + self.upsert + self.delete


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Both accounts of a vector segment. None is what was not measured at this level.

    Attributes:
        records: rows of ``embeddings``.
        index_ids: ids in the id map.
        elements: live elements and tombstones, as the header counts them.
        wal_rows: all rows that the WAL has of the collection.
        pending: those past the replay start.
        records_after_replay, index_ids_after_replay: both sides, with their share of the WAL.
        missing: records that the index lacks after replay.
        phantom: ids of the index that sqlite lacks after replay.
        swallowed: rows of the WAL that METADATA's watermark skips, though they never took effect.
    """

    records: Count | None = None
    index_ids: Count | None = None
    elements: Count | None = None
    live: Count | None = None
    tombstones: Count | None = None
    total_elements_added: int | None = None
    capacity: Count | None = None
    vector_watermark: int | None = None
    metadata_watermark: int | None = None
    wal_rows: Count | None = None
    pending: Pending | None = None
    records_after_replay: Count | None = None
    index_ids_after_replay: Count | None = None
    missing: Count | None = None
    phantom: Count | None = None
    swallowed: Count | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recoverable:
    """Where the vector of each record is, one source each.

    The sum is the records after replay, with those that a repair brings back from swallowed writes.
    """

    from_segment: Count | None = None
    from_wal: Count | None = None
    from_quarantine: Count | None = None
    suspect: Count | None = None
    lost: Count | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """Which collection a segment belongs to."""

    id: str
    name: str
    tenant: str
    database: str
    dimension: int | None
    space: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentReport:
    """One vector segment."""

    collection: CollectionInfo
    vector_segment: str | None
    metadata_segment: str | None
    status: Status
    ledger: Ledger
    recoverable: Recoverable
    findings: tuple[Finding, ...]

    @property
    def is_damaged(self) -> bool:
        """Whether it is known to be broken."""
        return self.status in ("diverged", "corrupt")

    @property
    def error_ids(self) -> tuple[str, ...]:
        """Ids of the findings that count as errors."""
        return tuple(found.id for found in self.findings if found.severity == "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChromaInfo:
    """Which Chroma wrote the store, by its migrations, and which can open it.

    Attributes:
        line: the line that wrote it, by whose ways it is judged unless another was asked for.
        releases: the releases that have these migrations, as "1.3.0 to 1.4.1".
        migrations: the newest of each directory.
        judged_for: the release that was asked for.
        readable_by: the releases that can open the store and the collections that were audited,
            as far as that is not a matter of damage; None where that could not be told.
    """

    line: str
    releases: str
    migrations: Mapping[str, int]
    judged_for: str | None = None
    readable_by: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """One persist directory."""

    path: str
    verdict: Verdict
    level: Level
    complete: bool
    elapsed_seconds: Annotated[float, Meta(ge=0)]
    chroma: ChromaInfo | None
    findings: tuple[Finding, ...]
    segments: tuple[SegmentReport, ...]

    @property
    def is_database_damaged(self) -> bool:
        """Whether chroma.sqlite3 is damaged, so that nothing certain is known of any segment."""
        return any(found.kind and found.kind.whole_database for found in self.findings)

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """The store's own and those of its segments."""
        return self.findings + tuple(f for s in self.segments for f in s.findings)


@dataclass(frozen=True, slots=True)
class Tool:
    """Who wrote the report."""

    name: Literal["hnswcheck"] = "hnswcheck"
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of an audit, for one store or several."""

    stores: tuple[StoreReport, ...]
    tool: Tool = field(default_factory=Tool)
    schema: SchemaId = SCHEMA_ID

    @property
    def verdict(self) -> Verdict:
        """The worst of the stores: damaged before undecided before consistent."""
        verdicts = {store.verdict for store in self.stores}
        for verdict in ("damaged", "undecided"):
            if verdict in verdicts:
                return verdict
        return "consistent"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every finding of every store and segment."""
        return tuple(f for store in self.stores for f in store.all_findings)

    def exit_code(self, fail_on: Severity = "error") -> int:
        """1 for a finding at or above ``fail_on``, else 3 if anything is undecided, else 0.

        Raises:
            UsageError: there is no such severity.
        """
        if fail_on not in SEVERITIES:
            raise UsageError(f"unknown severity {fail_on!r}; known are {', '.join(SEVERITIES)}")
        bar = SEVERITIES.index(fail_on)
        decided = (f for f in self.findings if not f.undecides)
        if any(SEVERITIES.index(f.severity) >= bar for f in decided):
            return 1
        return 0 if all(store.complete for store in self.stores) else 3

    def with_severities(self, severities: Mapping[str, Severity]) -> Report:
        """The same report, with other severities; statuses and verdicts stay what they are."""

        def changed(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
            return tuple(replace(f, severity=severities.get(f.id, f.severity)) for f in findings)

        stores = tuple(
            replace(
                store,
                findings=changed(store.findings),
                segments=tuple(replace(s, findings=changed(s.findings)) for s in store.segments),
            )
            for store in self.stores
        )
        return replace(self, stores=stores)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form as plain values."""
        return {
            "schema": self.schema,
            "tool": asdict(self.tool),
            "stores": [asdict(store) for store in self.stores],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """The JSON form; ASCII only, so that no id can upset a terminal."""
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """The report that :meth:`to_json` wrote; ``Report.from_json(r.to_json()) == r``.

        A report of a newer version can be read as long as its schema is the same. Findings that
        this version does not know are kept; fields that it does not know are passed over.

        Raises:
            UsageError: the text is no such report; the message names the place in it.
        """
        try:
            return read_document(text, cls, SCHEMA_ID, "report")
        except FormatError as error:
            raise UsageError(str(error)) from error


def json_schema() -> str:
    """The JSON Schema of :meth:`Report.to_json`, made from the classes of this module."""
    title = "Report of 'hnswcheck audit --format json'"
    says = "A quantity that was not measured at this level, or could not be, is null, never 0."
    return json.dumps(schema_of(Report, SCHEMA_ID, title, says), indent=2) + "\n"
