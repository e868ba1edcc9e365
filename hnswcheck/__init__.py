"""The fsck for Chroma: says exactly whether vector index and records agree."""

from hnswcheck._version import __version__
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
    "StoreChanged",
    "StoreInUse",
    "StoreNotFound",
    "StoreReport",
    "StoreUnreadable",
    "UsageError",
    "__version__",
    "audit",
    "quarantine",
    "quarantines",
    "restore",
]
