"""Account 1: the WAL replayed over both sides, which must then name the same records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from hnswcheck.checks.sampling import Sampler
from hnswcheck.replay.balance import Balance
from hnswcheck.replay.index import Replay
from hnswcheck.report import Finding, finding
from hnswcheck.store.releases import Release
from hnswcheck.store.wal import OPERATIONS, WalRow, row_fault
from hnswcheck.store.watermarks import Watermark


def check_balance(result: Balance, sampler: Sampler) -> Iterator[Finding]:
    """Findings of account 1."""
    if result.missing:
        sample = sampler.bytes(result.missing)
        yield finding("records-missing", len(result.missing), sample)
    if result.phantom:
        sample = sampler.bytes(result.phantom)
        yield finding("records-phantom", len(result.phantom), sample)


def check_swallowed(rows: Sequence[WalRow], sampler: Sampler) -> Iterator[Finding]:
    """Rows that METADATA skips though it never applied them."""
    if rows:
        ids = {row.id for row in rows}
        yield finding("writes-swallowed", len(ids), sampler.bytes(ids), None, _named(rows))


def _named(rows: Sequence[WalRow]) -> str:
    """How many rows there are of each operation."""
    counts = Counter(row.operation for row in rows)
    return ", ".join(f"{counts[name]:,} {name}" for name in OPERATIONS if counts[name])


def check_replay(replay: Replay, sampler: Sampler) -> Iterator[Finding]:
    """Pending operations that fail."""
    if replay.blocked:
        yield finding("replay-blocked", len(replay.blocked), sampler.bytes(replay.blocked))


def check_lag(rows: Sequence[WalRow], start: int) -> Iterator[Finding]:
    """Rows past the replay start."""
    waiting = sum(row.seq_id > start for row in rows)
    if waiting:
        yield finding("lag", waiting)


def check_rows(
    rows: Sequence[WalRow], dimension: int | None, sampler: Sampler
) -> Iterator[Finding]:
    """Rows that Chroma cannot read when it replays them."""
    faults = [(row, row_fault(row, dimension)) for row in rows]
    places = [f"seq_id {row.seq_id}: {text}" for row, text in faults if text]
    if places:
        yield finding("wal-unreadable", len(places), sampler.places(places))


def check_watermark(
    watermark: Watermark | None, release: Release, highest: int, segment: str
) -> Iterator[Finding]:
    """Findings about one ``max_seq_id`` row.

    Args:
        highest: the last seq_id in the WAL; the next write gets ``highest + 1``.
        segment: "VECTOR" or "METADATA".
    """
    if watermark is None:
        return
    if watermark.form not in (*release.watermark_forms, "pickled"):
        integer = release.watermark_type == "INTEGER"
        expected = "INTEGER" if integer else "8-byte big-endian BLOB"
        yield finding("watermark-encoding", 1, [segment], expected, watermark.form)
    if watermark.is_number(release) and not watermark.is_possible(release, highest):
        expected = f"{int(release.zero_skips_all)} to {highest}"
        yield finding("watermark-impossible", 1, [segment], expected, watermark.value)
