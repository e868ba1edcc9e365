"""The fsck for Chroma: says exactly whether vector index and records agree.

The public names are loaded when they are first used, so that a host pays for what it calls.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hnswcheck._version import __version__

if TYPE_CHECKING:
    from hnswcheck.auditing.api import audit
    from hnswcheck.changes.quarantine import Fate, QuarantineResult, quarantine
    from hnswcheck.changes.quarantine_on_start import quarantine_damaged
    from hnswcheck.changes.restore import RestoreResult, quarantines, restore
    from hnswcheck.comparison import Comparison, diff
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
    from hnswcheck.repairing.segment_plan import (
        SegmentPlan,
        SegmentRefused,
        SegmentRepair,
        SegmentRepaired,
    )
    from hnswcheck.report import Finding, Level, Report, SegmentReport, StoreReport
    from hnswcheck.salvaging.export import SalvageResult, salvage

#: Where each public name is defined.
_HOMES = {
    "auditing.api": ("audit",),
    "changes.quarantine": ("Fate", "QuarantineResult", "quarantine"),
    "changes.quarantine_on_start": ("quarantine_damaged",),
    "changes.restore": ("RestoreResult", "quarantines", "restore"),
    "comparison": ("Comparison", "diff"),
    "errors": (
        "ActionFailed",
        "EngineMissing",
        "ExtraMissing",
        "HnswcheckError",
        "NotAChromaStore",
        "RepairFailed",
        "RepairRefused",
        "RestoreRefused",
        "SchemaUnknown",
        "SqliteBusy",
        "SqliteDamaged",
        "StoreChanged",
        "StoreInUse",
        "StoreNotFound",
        "StoreUnreadable",
        "UsageError",
    ),
    "guarding": ("StoreBroken", "StoreDamaged", "StoreUndecided", "ensure_consistent", "guard"),
    "repairing.repair": ("RepairReport", "repair"),
    "repairing.segment_plan": (
        "SegmentPlan",
        "SegmentRefused",
        "SegmentRepair",
        "SegmentRepaired",
    ),
    "report": ("Finding", "Level", "Report", "SegmentReport", "StoreReport"),
    "salvaging.export": ("SalvageResult", "salvage"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ActionFailed",
    "Comparison",
    "EngineMissing",
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
    "SalvageResult",
    "SchemaUnknown",
    "SegmentPlan",
    "SegmentRefused",
    "SegmentRepair",
    "SegmentRepaired",
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
    "diff",
    "ensure_consistent",
    "guard",
    "quarantine",
    "quarantine_damaged",
    "quarantines",
    "repair",
    "restore",
    "salvage",
]


def __getattr__(name: str) -> object:
    """A public name, from its home, once it is asked for (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
