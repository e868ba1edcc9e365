"""The fsck for Chroma: says exactly whether vector index and records agree."""

from hnswcheck._version import __version__
from hnswcheck.actions.drifted import quarantine_drifted
from hnswcheck.actions.quarantine import Fate, QuarantineResult, quarantine
from hnswcheck.actions.restore import RestoreResult, quarantines, restore
from hnswcheck.audit import audit
from hnswcheck.errors import (
    ActionFailed,
    HnswcheckError,
    NotAChromaStore,
    RestoreRefused,
    SchemaUnknown,
    SqliteBusy,
    SqliteDamaged,
    StoreChanged,
    StoreInUse,
    StoreNotFound,
    StoreUnreadable,
    UsageError,
)
from hnswcheck.guard import (
    StoreBroken,
    StoreDamaged,
    StoreUndecided,
    ensure_consistent,
    guard,
)
from hnswcheck.report import Finding, Level, Report, SegmentReport, StoreReport

__all__ = [
    "ActionFailed",
    "Fate",
    "Finding",
    "HnswcheckError",
    "Level",
    "NotAChromaStore",
    "QuarantineResult",
    "Report",
    "RestoreRefused",
    "RestoreResult",
    "SchemaUnknown",
    "SegmentReport",
    "SqliteBusy",
    "SqliteDamaged",
    "StoreBroken",
    "StoreChanged",
    "StoreDamaged",
    "StoreInUse",
    "StoreNotFound",
    "StoreReport",
    "StoreUndecided",
    "StoreUnreadable",
    "UsageError",
    "__version__",
    "audit",
    "ensure_consistent",
    "guard",
    "quarantine",
    "quarantine_drifted",
    "quarantines",
    "restore",
]
