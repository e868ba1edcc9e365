"""The fsck for Chroma: says exactly whether vector index and records agree."""

from hnswcheck._version import __version__
from hnswcheck.actions.choices import SegmentRepair
from hnswcheck.actions.drifted import quarantine_drifted
from hnswcheck.actions.export import Export, export
from hnswcheck.actions.quarantine import Fate, QuarantineResult, quarantine
from hnswcheck.actions.repair import RepairReport, repair
from hnswcheck.actions.restore import RestoreResult, quarantines, restore
from hnswcheck.audit import audit
from hnswcheck.errors import (
    ActionFailed,
    EngineMissing,
    ExtraMissing,
    HnswcheckError,
    NotAChromaStore,
    RepairFailed,
    RepairRefused,
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
    "EngineMissing",
    "Export",
    "ExtraMissing",
    "Fate",
    "Finding",
    "HnswcheckError",
    "Level",
    "NotAChromaStore",
    "QuarantineResult",
    "RepairFailed",
    "RepairRefused",
    "RepairReport",
    "Report",
    "RestoreRefused",
    "RestoreResult",
    "SchemaUnknown",
    "SegmentRepair",
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
    "export",
    "guard",
    "quarantine",
    "quarantine_drifted",
    "quarantines",
    "repair",
    "restore",
]
