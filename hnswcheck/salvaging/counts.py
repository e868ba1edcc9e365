"""How many records each source has the best vector of, as an audit reports it."""

from __future__ import annotations

import numpy as np

from hnswcheck.errors import RepairRefused, SqliteDamaged
from hnswcheck.report import Recoverable
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.sources import LOG, NOWHERE, Salvaged, find_sources
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.database import Database


def recoverable(database: Database, view: CollectionView) -> Recoverable:
    """What a repair of a damaged collection would find; nothing where it would refuse.

    Raises:
        StoreChanged: a file changed while it was read.
    """
    try:
        return counted(find_sources(database, view), view)
    except (RepairRefused, SqliteDamaged):
        return Recoverable()


def counted(found: Salvaged, view: CollectionView) -> Recoverable:
    """One source for each record, the best that it has."""
    paths = [folder.path for folder in found.folders]
    own = paths.index(view.folder) + 1 if view.folder in paths else NOWHERE
    lost, in_wal = found.sources == NOWHERE, found.sources == LOG
    suspect = ~lost & (found.grades == Grade.SUSPECT)
    in_folder = ~(lost | in_wal | suspect)
    in_segment = in_folder & (found.sources == own)
    nowhere = int(np.count_nonzero(lost))
    return Recoverable(
        from_segment=int(np.count_nonzero(in_segment)),
        from_wal=int(np.count_nonzero(in_wal)),
        from_quarantine=int(np.count_nonzero(in_folder & ~in_segment)),
        suspect=int(np.count_nonzero(suspect)),
        lost=None if nowhere and found.unread else nowhere,
    )
