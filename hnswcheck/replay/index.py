"""What replaying the log does to an index: which ids it has afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from hnswcheck.formats.arrays import Flags
from hnswcheck.formats.id_map import IdMap
from hnswcheck.formats.strings import find
from hnswcheck.store.releases import Release, counts_readded
from hnswcheck.store.wal import WalRow


@dataclass(frozen=True, slots=True)
class Marks:
    """Which elements stand in the way of replay.

    Attributes:
        undeletable: bool (ids,): the element of each id is tombstoned or not there at all.
        tombstoned: bool (ids,): it is tombstoned.
        dead_labels: tombstoned labels that the id map never named.
        last_label: the label that was handed out last.
    """

    undeletable: Flags
    tombstoned: Flags
    dead_labels: AbstractSet[int]
    last_label: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What the WAL does to the index when Chroma opens the collection.

    Attributes:
        labels_handed_out: how many new labels replay hands out at most.
        present: for every id that replay touches, whether the index has it afterwards.
        revived: positions in the id map of ids without a live element that replay writes again.
        blocked: ids whose replay fails, because their element is tombstoned or not there.
    """

    labels_handed_out: int = 0
    present: dict[bytes, bool] = field(default_factory=dict)
    revived: frozenset[int] = frozenset()
    blocked: tuple[bytes, ...] = ()


def replay_index(
    rows: Sequence[WalRow], start: int, id_map: IdMap | None, marks: Marks | None, release: Release
) -> Replay:
    """Apply the rows past ``start`` to the ids of the index.

    The rules are those of ``apply_log_chunk`` (rust/segment/src/local_hnsw.rs): add inserts an id
    that is not there; upsert inserts or changes; update changes; delete removes one that is there
    and marks its element, which fails where it is marked already.

    Args:
        marks: None where the elements were not read, or where replay starts a new index.
    """
    pending = [row for row in rows if row.seq_id > start]
    base = {} if id_map is None else find((r.id for r in pending), id_map.id_to_label.ids)
    present = {row.id: row.id in base for row in pending}
    at: dict[bytes, int | None] = dict(base)  # None: a label that replay handed out
    alive: set[int] = set()
    revived: set[int] = set()
    blocked: dict[bytes, None] = {}
    handed_out = 0
    revives = release.revives_tombstones
    for row in pending:
        position = at.get(row.id)
        match row.operation:
            case "add" | "upsert" if not present[row.id]:
                present[row.id], at[row.id] = True, None
                handed_out += 1
                if marks and not revives and marks.last_label + handed_out in marks.dead_labels:
                    blocked[row.id] = None
            case "update" | "upsert" if present[row.id] and row.vector_bytes is not None:
                if marks is None or position is None or position in alive:
                    continue
                if marks.tombstoned[position] and not revives:
                    blocked[row.id] = None
                    continue
                if marks.undeletable[position]:  # a label without an element gets one
                    revived.add(position)
                alive.add(position)
            case "delete" if present[row.id]:
                present[row.id] = False
                if marks and position is not None and marks.undeletable[position]:
                    if position not in alive:
                        blocked[row.id] = None
                    alive.discard(position)
            case _:
                pass
    if id_map is not None and counts_readded(id_map.shape):
        handed_out = sum(row.operation in ("add", "upsert") for row in pending)
    return Replay(handed_out, present, frozenset(revived), tuple(blocked))
