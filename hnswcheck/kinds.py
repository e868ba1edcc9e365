"""What a finding can be called and what its entry in the registry says, but for the entries."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

#: Every id there is, in the order of the registry. None ever changes its meaning or comes back.
FindingId = Literal[
    # store
    "store-not-found", "not-a-chroma-store", "schema-unknown", "schema-newer",
    "upgrade-refused", "sqlite-damaged", "sqlite-busy",
    "store-changed", "file-unreadable", "segment-row-missing", "segment-type-unknown",
    "catalogue-invalid", "release-refuses", "settings-refused", "settings-refused-elsewhere",
    "segment-path-unsafe", "segment-symlinked",
    "segment-not-persisted",
    "segment-folder-unclaimed", "segment-folder-discarded", "action-unfinished",
    "segment-folder-quarantined",
    # files
    "segment-folder-missing", "file-missing", "file-truncated", "norms-truncated",
    "header-invalid", "header-dimension-mismatch", "header-count-impossible",
    "link-lists-truncated", "link-lists-invalid", "file-oversized",
    "next-load-refused",
    # id map
    "id-map-missing", "id-map-truncated", "id-map-unsafe", "id-map-invalid", "id-map-not-inverse",
    "id-map-label-out-of-range", "id-map-dimension-mismatch", "id-map-too-new",
    # elements
    "label-duplicate", "label-missing", "label-tombstoned", "element-unmapped",
    "flush-interrupted",
    # graph
    "neighbour-out-of-range", "neighbour-self", "neighbour-duplicate", "degree-too-large",
    "level-inconsistent", "entry-point-invalid", "elements-unreachable",
    # ledger
    "records-missing", "records-phantom", "writes-swallowed", "replay-blocked", "lag",
    "watermark-legacy", "watermark-missing", "watermark-impossible", "watermark-encoding",
    "checkpoint-behind-watermark", "checkpoint-ahead-of-log", "flush-rolled-back",
    "wal-unreadable",
    # vectors
    "vector-not-finite", "vector-not-normalised", "norm-invalid", "vector-differs-from-wal",
    # second reader
    "second-reader-disagrees", "searches-miss", "second-reader-not-asked",
]  # fmt: skip

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
Status = Literal["consistent", "empty", "lagging", "diverged", "corrupt", "undecided"]
#: Of all that the findings of a segment mean, the last in this order is its status.
STATUSES: tuple[Status, ...] = (
    "consistent", "empty", "lagging", "diverged", "corrupt", "undecided",
)  # fmt: skip
#: What reads a store: Chroma's engine in Python, of 0.x, or the one in Rust, of 1.x.
Reader = Literal["python", "rust"]
Group = Literal[
    "store", "files", "id map", "elements", "graph", "ledger", "vectors", "second reader"
]


@dataclass(frozen=True, slots=True)
class Kind:
    """One entry of the registry.

    Attributes:
        id: stable, kebab-case.
        severity: the default; a caller may override it for exit codes.
        title: one phrase.
        consequence: what Chroma does with it; 1.x, where ``in_python`` says what 0.x does.
        remedy: what to do.
        undecides: no verdict about the store or segment is possible.
        means: the status of a segment with it, where severity and ``undecides`` do not say it.
        patchable: a new id map, a new watermark or shorter links in the folder that is there make
            it go; if it is a warning, it is worth that.
        passing: a flush that goes on at this moment looks the same.
        no_store: there is no store to report on.
        whole_database: chroma.sqlite3 is damaged, so nothing certain is known of any segment.
        in_python: what Chroma 0.x does with it, where that is something else.
    """

    id: FindingId
    group: Group
    severity: Severity
    title: str
    consequence: str
    remedy: str
    _: KW_ONLY
    undecides: bool = False
    means: Status | None = None
    patchable: bool = False
    passing: bool = False
    no_store: bool = False
    whole_database: bool = False
    in_python: str = ""

    def consequence_in(self, reader: Reader) -> str:
        """What Chroma does with it that has this reader."""
        return self.in_python if reader == "python" and self.in_python else self.consequence

    @property
    def status(self) -> Status:
        """What it makes of a segment that has it."""
        if self.means is not None:
            return self.means
        if self.undecides:
            return "undecided"
        return "corrupt" if self.severity == "error" else "consistent"
