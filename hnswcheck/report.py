"""What an audit says: frozen values, and their JSON form ``hnswcheck.report/1``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from importlib.resources import files
from typing import Any, Literal

from hnswcheck._version import __version__
from hnswcheck.findings import REGISTRY
from hnswcheck.kinds import SEVERITIES, FindingId, Severity, Status

SCHEMA_ID = "hnswcheck.report/1"

Verdict = Literal["consistent", "damaged", "undecided"]
#: What a finding expected and found: something JSON can say.
Fact = str | int | float | None


class Level(StrEnum):
    """How much is read. Each level contains the one before."""

    PROBE = "probe"
    STANDARD = "standard"
    DEEP = "deep"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or worth knowing, about a store or a segment.

    Attributes:
        count: exactly how many are affected.
        sample: ids (or places) of some of them, of all if all were asked for.
    """

    id: str
    severity: Severity
    title: str
    count: int
    sample: tuple[str, ...]
    expected: Fact
    found: Fact
    consequence: str
    remedy: str


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
        entry.id,
        entry.severity,
        entry.title,
        count,
        tuple(sample),
        expected,
        found,
        entry.consequence,
        entry.remedy,
    )


@dataclass(frozen=True, slots=True)
class Pending:
    """WAL rows past the replay start, by operation."""

    add: int = 0
    update: int = 0
    upsert: int = 0
    delete: int = 0

    @property
    def total(self) -> int:
        """All rows, whatever they do."""
        return self.add + self.update + self.upsert + self.delete


@dataclass(frozen=True, slots=True)
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
    """

    records: int | None = None
    index_ids: int | None = None
    elements: int | None = None
    live: int | None = None
    tombstones: int | None = None
    total_elements_added: int | None = None
    capacity: int | None = None
    vector_watermark: int | None = None
    metadata_watermark: int | None = None
    wal_rows: int | None = None
    pending: Pending | None = None
    records_after_replay: int | None = None
    index_ids_after_replay: int | None = None
    missing: int | None = None
    phantom: int | None = None


@dataclass(frozen=True, slots=True)
class Recoverable:
    """Where the vector of each record is, one source each; the sum is the records after replay."""

    from_segment: int | None = None
    from_wal: int | None = None
    from_quarantine: int | None = None
    suspect: int | None = None
    lost: int | None = None


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """Which collection a segment belongs to."""

    id: str
    name: str
    tenant: str
    database: str
    dimension: int | None
    space: str


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class ChromaInfo:
    """Which Chroma line last migrated the store, by its migrations."""

    line: str
    migrations: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StoreReport:
    """One persist directory."""

    path: str
    verdict: Verdict
    level: Level
    complete: bool
    elapsed_seconds: float
    chroma: ChromaInfo | None
    findings: tuple[Finding, ...]
    segments: tuple[SegmentReport, ...]

    @property
    def is_database_damaged(self) -> bool:
        """Whether chroma.sqlite3 is damaged, so that nothing certain is known of any segment."""
        return any(REGISTRY[found.id].whole_database for found in self.findings)

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """The store's own and those of its segments."""
        return self.findings + tuple(f for s in self.segments for f in s.findings)


@dataclass(frozen=True, slots=True)
class Tool:
    """Who wrote the report."""

    name: str = "hnswcheck"
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of an audit, for one store or several."""

    stores: tuple[StoreReport, ...]
    tool: Tool = field(default_factory=Tool)
    schema: str = SCHEMA_ID

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
        """1 for a finding at or above ``fail_on``, else 3 if anything is undecided, else 0."""
        bar = SEVERITIES.index(fail_on)
        decided = (f for f in self.findings if not REGISTRY[f.id].undecides)
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


def json_schema() -> str:
    """The JSON Schema of :meth:`Report.to_json`."""
    return files("hnswcheck").joinpath("report.schema.json").read_text("utf-8")
