"""Which vectors replaying the log brings into an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from hnswcheck.store.releases import Release
from hnswcheck.store.wal import WalRow


def rows_in_index(
    rows: Sequence[WalRow],
    start: int,
    complete: bool,
    written: Mapping[bytes, int],
    release: Release,
) -> dict[bytes, int]:
    """For each id whose vector must be that of a row, the row's seq_id.

    Ids that rows past ``start`` touch are left out: an interrupted flush may have them already.

    Args:
        rows: all that the log has of the collection, in order.
        complete: the log was never purged, so an id that it has not seen was not there.
        written: the last operation on records; an add that is the last made its record, as Chroma
            ignores an add of an id that is there.
    """
    expected: dict[bytes, int] = {}
    exists: dict[bytes, bool | None] = {}
    for row in rows:
        if row.seq_id > start:
            expected.pop(row.id, None)
            continue
        if row.obscure:
            exists[row.id] = None
            expected.pop(row.id, None)
            continue
        made = row.operation == "add" and written.get(row.id) == row.seq_id
        there = exists.get(row.id, False if complete or made else None)
        match row.operation:
            case "delete":
                exists[row.id] = False
                expected.pop(row.id, None)
            case "add" if there is not True:
                exists[row.id] = True
                expected.pop(row.id, None)  # it may have been there, and then nothing happened
                if there is False:
                    expected[row.id] = row.seq_id
            case "add" if not release.index_ignores_known_adds:
                expected.pop(row.id, None)
            case "upsert":
                exists[row.id] = True
                if row.vector_bytes is not None:
                    expected[row.id] = row.seq_id
            case "update" if there is not False and row.vector_bytes is not None:
                expected[row.id] = row.seq_id
            case _:
                pass
    return expected


def vectors_in(rows: Sequence[WalRow], start: int, indexed: AbstractSet[bytes]) -> set[bytes]:
    """Ids whose last vector that took effect is in ``rows``.

    An add of an id that exists has no effect, nor an update of one that does not.

    Args:
        indexed: ids of the rows that the index had at the replay start.
    """
    exists: dict[bytes, bool] = {}
    has_vector: set[bytes] = set()
    for row in rows:
        known = exists.get(row.id)
        if known is None and row.seq_id > start:
            known = row.id in indexed
        if row.operation == "delete" or row.obscure:
            exists[row.id] = row.obscure
            has_vector.discard(row.id)
            continue
        no_effect = known is True if row.operation == "add" else known is False
        if row.operation == "upsert":
            no_effect = False
        if no_effect:
            continue
        exists[row.id] = True
        if row.vector_bytes is not None:
            has_vector.add(row.id)
    return has_vector


def written_vectors(pending: Sequence[WalRow], present: set[bytes]) -> dict[bytes, int]:
    """The row that the vector of each id is from, once they are replayed; 0 for an element.

    Args:
        present: ids of these rows that the index has before.
    """
    written: dict[bytes, int] = {}
    for row in pending:
        has_vector = row.vector_bytes is not None
        match row.operation:
            case "delete":
                present.discard(row.id)
                written.pop(row.id, None)
            case "add" | "upsert" if row.id not in present:
                present.add(row.id)
                written[row.id] = row.seq_id
            case "update" | "upsert" if row.id in present and has_vector:
                written[row.id] = row.seq_id
            case _:
                pass
    return written
