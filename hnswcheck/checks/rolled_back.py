"""What an index of 0.x has of a call that sqlite rolled back.

From 0.5.6 to 0.6.3 a call writes the log, the records and, if it comes to a flush, the index files
in one transaction of sqlite. A process that dies before the commit leaves the files alone: the log
gives the same numbers to other operations. The id map tells, as it has the operation of each id.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hnswcheck.checks.sampling import Sampler
from hnswcheck.formats.id_map import IdMap
from hnswcheck.report import Finding, finding
from hnswcheck.store.collection_view import CollectionView


def rolled_back(id_map: IdMap | None, view: CollectionView) -> list[bytes]:
    """Ids that the index has as an operation wrote them which neither log nor records have.

    The log keeps all that came after VECTOR's watermark, unless somebody emptied it: then records
    have the numbers of operations from before.
    """
    mark = view.vector_watermark
    if id_map is None or id_map.seq_ids is None or mark is None or mark.form == "pickled":
        return []
    if not mark.is_possible(view.writer, view.highest):
        return []
    ids, seq_ids = id_map.seq_ids.ids, id_map.seq_ids.labels
    newer = np.flatnonzero(seq_ids > mark.value).tolist()
    if not newer:
        return []
    logged = {(row.seq_id, row.id) for row in view.wal}
    written = view.written_since(mark.value)
    pairs = ((int(seq_ids[i]), ids[i]) for i in newer)
    return [id for n, id in pairs if (n, id) not in logged and written.get(id, 0) < n]


def check_rolled_back(
    id_map: IdMap | None, view: CollectionView, sampler: Sampler
) -> Iterator[Finding]:
    """A finding about those ids."""
    if ids := rolled_back(id_map, view):
        yield finding("flush-rolled-back", len(ids), sampler.bytes(ids))
