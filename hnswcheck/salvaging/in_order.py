"""A collection whose log gave its numbers again, as if the numbers had gone on.

All that salvage proves, it proves from which operation was earlier. Where somebody emptied the log,
what was written since has numbers at or below those of the records. Rows that METADATA never
applied came after all that it did apply; so they get higher numbers here, all by the same. Then
they wait for both segments, like rows that were just written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from hnswcheck.checks.ledger import check_watermark
from hnswcheck.formats.arrays import Ints
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.database import Database
from hnswcheck.store.records import History, Records, accounted_by_records
from hnswcheck.store.unapplied import UnappliedRows
from hnswcheck.store.wal import WalRow, is_complete
from hnswcheck.store.watermarks import LARGEST_SEQ_ID, Watermark, WatermarkForm


def in_order(
    database: Database, view: CollectionView, stored: Records
) -> tuple[CollectionView, Records]:
    """View and records with lifted numbers, where that is the order in which they were written.

    The same ones where the log never gave a number again, or where VECTOR may have applied some of
    the rows since, and not those before them: then its folder is of no one moment.

    Args:
        stored: the records, before replay.
    """
    found, again = view.unapplied(), view.first_given_again()
    if not found.first or again is None or found.before <= view.start <= LARGEST_SEQ_ID:
        return view, stored
    ids = {row.seq_id: row.id for row in view.read_all_wal() if row.seq_id >= found.first}
    since = np.array(
        [ids.get(n) == id for n, id in zip(stored.seq_ids.tolist(), stored.ids, strict=True)], bool
    )
    before = int(stored.seq_ids[~since].max(initial=0))
    lift = max(before, *(n for n in (view.start, view.metadata_start) if n <= LARGEST_SEQ_ID))
    lift = max(lift, view.highest)

    def lifted(rows: Sequence[WalRow]) -> Sequence[WalRow]:
        return [replace(r, seq_id=r.seq_id + lift) if r.seq_id in ids else r for r in rows]

    def history() -> History:
        untold = since.any() or not (is_complete(database) and view.all_unapplied())
        return History(0 if untold else accounted_by_records(database), complete=False)

    form: WatermarkForm = "integer" if "integer" in view.writer.watermark_forms else "blob8"
    in_order = replace(
        view,
        lift=lift,
        metadata_watermark=Watermark(found.first + lift - 1, form),
        wal=lifted(view.wal),
        highest=view.highest + lift,
        read_all_wal=cache(lambda: lifted(view.read_all_wal())),
        history=cache(history),
        unapplied=lambda: UnappliedRows(doubtful=tuple(n + lift for n in found.doubtful)),
        lost_until=min(view.metadata_start, found.before - 1),
    )
    return in_order, replace(stored, seq_ids=stored.seq_ids + np.where(since, lift, 0))


def as_logged(seq_ids: Ints, lift: int) -> Ints:
    """int64 (n,): numbers as the log has them."""
    return np.where(seq_ids > lift, seq_ids - lift, seq_ids) if lift else seq_ids


def right_metadata_start(view: CollectionView, stored: Records) -> int | None:
    """METADATA's watermark where it is not what Chroma wrote, or skips what was never applied.

    That is before the first row that was never applied, or the last operation that was. None where
    the watermark can stay.
    """
    mark, highest, release = view.metadata_watermark, view.highest, view.writer
    if first := view.unapplied().first:
        return first - 1 or release.before_all
    if not any(check_watermark(mark, release, highest, "METADATA")):
        return None
    assert mark is not None
    if mark.is_number(release) and mark.is_possible(release, highest):
        return mark.value  # only written in another form
    return min(int(stored.seq_ids.max(initial=0)), highest) or release.before_all


def doubt_about_start(view: CollectionView, righted: int | None) -> str:
    """Why nobody can tell where METADATA has to begin; empty if that is not so.

    Args:
        righted: METADATA's right watermark; None if it is that.
    """
    doubtful = [row for row in view.unapplied().doubtful if righted is not None and row <= righted]
    if not doubtful:
        return ""
    return (
        f"METADATA's watermark is ahead of the log, and nothing tells whether {len(doubtful):,}"
        " writes in the log were never applied, or applied and undone by rows that the log lost"
    )


def numbered_again(stored: Records, rows: Sequence[WalRow], highest: int) -> bool:
    """Whether the log was emptied, and its numbers were given to other operations again since."""
    if 0 < highest < int(stored.seq_ids.max(initial=0)):
        return True
    ids = {row.seq_id: row.id for row in rows}
    logged = np.flatnonzero(np.isin(stored.seq_ids, list(ids)))
    return any(ids[int(stored.seq_ids[i])] != stored.ids[i] for i in logged.tolist())
