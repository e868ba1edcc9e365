"""The fsck for Chroma: says exactly whether vector index and records agree."""

from hnswcheck._version import __version__
from hnswcheck.audit import audit
from hnswcheck.errors import (
    HnswcheckError,
    NotAChromaStore,
    SchemaUnknown,
    SqliteBusy,
    SqliteDamaged,
    StoreChanged,
    StoreNotFound,
    StoreUnreadable,
    UsageError,
)
from hnswcheck.report import Finding, Level, Report, SegmentReport, StoreReport

__all__ = [
    "Finding",
    "HnswcheckError",
    "Level",
    "NotAChromaStore",
    "Report",
    "SchemaUnknown",
    "SegmentReport",
    "SqliteBusy",
    "SqliteDamaged",
    "StoreChanged",
    "StoreNotFound",
    "StoreReport",
    "StoreUnreadable",
    "UsageError",
    "__version__",
    "audit",
]
