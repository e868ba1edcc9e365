"""Which vectors replaying the log brings into an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from hnswcheck.replay.effects import Effect, effect_on_index, effect_on_record
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

    Asks what the index must have, where the log may begin in the middle: it says nothing of an id
    unless one row is sure, whether the id was there before the log or not. Ids that rows past
    ``start`` touch are left out: an interrupted flush may have them already.

    Args:
        rows: all that the log has of the collection, in order, as
            :func:`hnswcheck.store.wal.legible` has them.
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
        made = row.operation == "add" and written.get(row.id) == row.seq_id
        there = exists.get(row.id, False if complete or made else None)
        match effect_on_index(row, there, release):
            case Effect.UNKNOWN:
                exists[row.id] = None
                expected.pop(row.id, None)
            case Effect.DELETES | Effect.DELETES_IF_THERE:
                exists[row.id] = False
                expected.pop(row.id, None)
            case Effect.CREATES | Effect.UPSERTS:
                exists[row.id] = True
                expected[row.id] = row.seq_id
            case Effect.CREATES_IF_ABSENT | Effect.CREATES_OR_DISPUTED:
                exists[row.id] = True
                expected.pop(row.id, None)  # it may have been there, and then nothing happened
            case Effect.WRITES | Effect.WRITES_IF_THERE:
                expected[row.id] = row.seq_id
            case Effect.DISPUTED:
                expected.pop(row.id, None)
            case _:
                pass
    return expected


def vectors_in(rows: Sequence[WalRow], start: int, indexed: AbstractSet[bytes]) -> set[bytes]:
    """Ids whose last vector that took effect is in ``rows``.

    Asks whether the log still has a vector, rather than which. So an add of an id of which nobody
    knows counts, and an operation that Chroma does not know counts as an update; but a row whose
    vector cannot be read leaves its id without one.

    Args:
        indexed: ids of the rows that the index had at the replay start.
    """
    exists: dict[bytes, bool] = {}
    has_vector: set[bytes] = set()
    for row in rows:
        known = exists.get(row.id)
        if known is None and row.seq_id > start:
            known = row.id in indexed
        match effect_on_record(row, known):
            case Effect.DELETES | Effect.DELETES_IF_THERE:
                exists[row.id] = False
                has_vector.discard(row.id)
            case _ if row.obscure:
                exists[row.id] = True
                has_vector.discard(row.id)
            case Effect.IGNORED:
                pass
            case Effect.UNKNOWN if known is False:
                pass
            case _:
                exists[row.id] = True
                if row.vector_bytes is not None:
                    has_vector.add(row.id)
    return has_vector


def written_vectors(pending: Sequence[WalRow], present: set[bytes]) -> dict[bytes, int]:
    """The row that the vector of each id is from, once they are replayed.

    Asks which row, from a moment on at which the ids of the index are known: every row is sure, and
    an add of an id that is there changes nothing.

    Args:
        present: ids of these rows that the index has before.
    """
    written: dict[bytes, int] = {}
    for row in pending:
        match effect_on_record(row, row.id in present):
            case Effect.DELETES:
                present.discard(row.id)
                written.pop(row.id, None)
            case Effect.CREATES:
                present.add(row.id)
                written[row.id] = row.seq_id
            case Effect.CHANGES if row.vector_bytes is not None:
                written[row.id] = row.seq_id
            case _:
                pass
    return written
