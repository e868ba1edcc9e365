"""The fsck for Chroma: says exactly whether vector index and records agree."""

from hnswcheck._version import __version__
from hnswcheck.auditing.runner import audit
from hnswcheck.changes.quarantine import Fate, QuarantineResult, quarantine
from hnswcheck.changes.quarantine_on_start import quarantine_drifted
from hnswcheck.changes.restore import RestoreResult, quarantines, restore
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
from hnswcheck.guarding import (
    StoreBroken,
    StoreDamaged,
    StoreUndecided,
    ensure_consistent,
    guard,
)
from hnswcheck.repairing.repair import RepairReport, repair
from hnswcheck.repairing.segment_plan import SegmentRepair
from hnswcheck.report import Finding, Level, Report, SegmentReport, StoreReport
from hnswcheck.salvaging.export import Export, export

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
