"""Rows of the log as far as they can be read, whatever Chroma makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hnswcheck.checks.ledger import row_fault
from hnswcheck.store.wal import METADATA_FAULT, WalRow


def legible(rows: Sequence[WalRow], dimension: int | None) -> Sequence[WalRow]:
    """The same rows with all their faults, and without vectors that cannot be read."""
    return [_legible(row, row_fault(row, dimension)) for row in rows]


def _legible(row: WalRow, fault: str | None) -> WalRow:
    if fault is None or fault == METADATA_FAULT:
        return row
    obscure = row.operation != "delete"
    return replace(row, vector_bytes=None, fault=fault, obscure=obscure)
