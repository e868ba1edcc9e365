"""Where is the vector of each record, before anybody moves anything?"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from hnswcheck.errors import RepairRefused, SqliteDamaged
from hnswcheck.report import Recoverable
from hnswcheck.salvaging.grading import Grade
from hnswcheck.salvaging.sources import LOG, NOWHERE, Salvage, salvage
from hnswcheck.store.collection_view import Target
from hnswcheck.store.database import Database
from hnswcheck.store.wal import WalRow


def recoverable(database: Database, target: Target) -> Recoverable:
    """What a repair of a damaged collection would find; nothing where it would refuse.

    Raises:
        StoreChanged: a file changed while it was read.
    """
    try:
        return counted(salvage(database, target), target)
    except (RepairRefused, SqliteDamaged):
        return Recoverable()


def counted(found: Salvage, target: Target) -> Recoverable:
    """One source for each record, the best that it has."""
    paths = [folder.path for folder in found.folders]
    own = paths.index(target.folder) + 1 if target.folder in paths else NOWHERE
    lost, in_wal = found.sources == NOWHERE, found.sources == LOG
    suspect = ~lost & (found.grades == Grade.SUSPECT)
    in_folder = ~(lost | in_wal | suspect)
    in_segment = in_folder & (found.sources == own)
    nowhere = int(np.count_nonzero(lost))
    return Recoverable(
        int(np.count_nonzero(in_segment)),
        int(np.count_nonzero(in_wal)),
        int(np.count_nonzero(in_folder & ~in_segment)),
        int(np.count_nonzero(suspect)),
        None if nowhere and found.unread else nowhere,
    )


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
