"""What replaying the log does to a record's document and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hnswcheck.replay.effects import Effect, effect_on_record
from hnswcheck.store.documents import Value
from hnswcheck.store.wal import WalRow


def replay_metadata(
    own: dict[str, Value],
    made: bool,
    rows: Sequence[WalRow],
    written: Mapping[int, Mapping[str, Value]],
) -> dict[str, Value]:
    """The metadata of a record once METADATA has applied these rows, all that are of its id.

    Asks only of rows after the last delete, as the record exists in the end. Where another fold
    passes over an operation that Chroma does not know, this one takes it for an upsert: the record
    has its metadata, or nobody has them.

    Args:
        made: it is one that they make: what was there of its id before, they delete.
    """
    deletes = (i for i, row in enumerate(rows) if row.operation == "delete")
    exists = not made
    for row in rows[max(deletes, default=-1) + 1 :]:
        if effect_on_record(row, exists) is Effect.IGNORED:
            continue
        exists = True
        own = {**own, **written.get(row.seq_id, {})}
        own = {key: value for key, value in own.items() if value is not None}
    return own
