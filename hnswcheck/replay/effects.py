"""What a row of Chroma's log does: to the records in sqlite, to the index, and to an element.

======== ================= =================== ==========================
row      id is not there   id is there         nobody knows
======== ================= =================== ==========================
add      creates           is ignored          creates, or is ignored
update   is ignored        changes, or writes  the same, or is ignored
upsert   creates           changes, or writes  creates, or changes it
delete   is ignored        deletes             deletes, or is ignored
backfill is ignored        is ignored          is ignored
======== ================= =================== ==========================

*Records* have no vectors, so an update and an upsert change a document and metadata only. The
*index* has nothing else than vectors: an update without one is ignored there, and a row whose
vector nobody can read does what nobody knows. Ids come and go on both sides alike.

A *backfill* asks to run a function, and its id is no record's. Lines that skip none do not know the
operation: there such a row is one that cannot be read.

Effects know no batches. 0.x takes the log into its index batch by batch, and forgets some of what
a batch says of an id twice: see :mod:`hnswcheck.replay.batches`.

A row that Chroma cannot read at all ends the replay: :func:`hnswcheck.store.wal.row_fault` says
which. Here a row has the effect that it has once it is read.

Sources in chroma-core/chroma. 1.x: ``apply_log_chunk`` in rust/segment/src/local_hnsw.rs, and
``apply_logs`` in rust/segment/src/sqlite_metadata.rs. 0.x: ``_write_records`` and ``_apply_batch``
in chromadb/segment/impl/vector/local_persistent_hnsw.py and local_hnsw.py, and ``_insert_record``
in chromadb/segment/impl/metadata/sqlite.py. Elements: ``addPoint`` and ``markDeletedInternal`` in
hnswlib/hnswalg.h of chroma-core/hnswlib.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, Flag, auto
from functools import cache

from hnswcheck.store.releases import Release
from hnswcheck.store.wal import OPERATIONS, Operation, WalRow


class Effect(Flag):
    """What a row does to what is there of its id; several where nobody knows whether it is there.

    Attributes:
        CREATES: the id was not there, and is there afterwards; in the index with the row's vector.
        WRITES: the id was there, and has the row's vector afterwards.
        CHANGES: the id was there, and its document or metadata change.
        DELETES: the id was there, and is not afterwards.
        IGNORED: nothing changes.
        DISPUTED: the id was there, and has its own vector or the row's afterwards.
        FAILS: the replay of the log ends there.
        UNKNOWN: the operation, or the vector that it writes, cannot be read.
        CREATES_IF_ABSENT, UPSERTS, WRITES_IF_THERE, CHANGES_IF_THERE, DELETES_IF_THERE,
            CREATES_OR_CHANGES, CREATES_OR_DISPUTED: what they say, where nobody knows whether the
            id is there.
    """

    CREATES = auto()
    WRITES = auto()
    CHANGES = auto()
    DELETES = auto()
    IGNORED = auto()
    DISPUTED = auto()
    FAILS = auto()
    UNKNOWN = auto()

    CREATES_IF_ABSENT = CREATES | IGNORED
    UPSERTS = CREATES | WRITES
    WRITES_IF_THERE = WRITES | IGNORED
    CHANGES_IF_THERE = CHANGES | IGNORED
    DELETES_IF_THERE = DELETES | IGNORED
    CREATES_OR_CHANGES = CREATES | CHANGES
    CREATES_OR_DISPUTED = CREATES | DISPUTED


Table = Mapping[tuple[Operation, bool | None], Effect]


def _table(present: Mapping[Operation, Effect], absent: Mapping[Operation, Effect]) -> Table:
    """Where nobody knows whether the id is there, either may be so."""
    table: dict[tuple[Operation, bool | None], Effect] = {}
    for operation in OPERATIONS:
        table[operation, True] = present[operation]
        table[operation, False] = absent[operation]
        table[operation, None] = present[operation] | absent[operation]
    table |= {("backfill", exists): Effect.IGNORED for exists in (True, False, None)}
    return table


_ABSENT: Mapping[Operation, Effect] = {
    "add": Effect.CREATES,
    "update": Effect.IGNORED,
    "upsert": Effect.CREATES,
    "delete": Effect.IGNORED,
}

_RECORD = _table(
    {
        "add": Effect.IGNORED,
        "update": Effect.CHANGES,
        "upsert": Effect.CHANGES,
        "delete": Effect.DELETES,
    },
    _ABSENT,
)


def effect_on_record(row: WalRow, exists: bool | None) -> Effect:
    """What a row does to the record of its id, in every release.

    The same rows make and delete the ids of the index: who asks only which ids are there asks this.

    Args:
        exists: whether there is a record of this id; None where nobody knows.
    """
    return Effect.UNKNOWN if row.operation is None else _RECORD[row.operation, exists]


def effect_on_index(row: WalRow, exists: bool | None, release: Release) -> Effect:
    """What a row does to the index, taken that its element is live.

    Args:
        exists: whether the index has this id; None where nobody knows.
    """
    if row.operation is None or row.obscure:
        return Effect.UNKNOWN
    has_vector = row.vector_bytes is not None
    table = _index_table(has_vector, release.index_ignores_known_adds, release.index_needs_vectors)
    return table[row.operation, exists]


@cache
def _index_table(has_vector: bool, ignores_known_adds: bool, needs_vectors: bool) -> Table:
    without = Effect.FAILS if needs_vectors else Effect.IGNORED
    if not has_vector:
        return _table(
            {
                "add": Effect.IGNORED,
                "update": Effect.IGNORED,
                "upsert": without,
                "delete": Effect.DELETES,
            },
            {**_ABSENT, "add": without, "upsert": without},
        )
    return _table(
        {
            "add": Effect.IGNORED if ignores_known_adds else Effect.DISPUTED,
            "update": Effect.WRITES,
            "upsert": Effect.WRITES,
            "delete": Effect.DELETES,
        },
        _ABSENT,
    )


class Element(Enum):
    """What there is of the element that the index has of an id.

    Attributes:
        DELETED: it is marked deleted.
        ABSENT: there is none, though there is a label.
    """

    LIVE = auto()
    DELETED = auto()
    ABSENT = auto()


def effect_on_element(effect: Effect, element: Element, release: Release) -> Effect:
    """What becomes of an effect on the index at the element: it stays, or hnswlib refuses it.

    A vector goes into a live element, makes one where there is none, and clears the mark of a
    deleted one or is refused. Only a live element can be deleted.

    Args:
        effect: one that is known: neither UNKNOWN nor several.
    """
    match effect:
        case Effect.CREATES | Effect.WRITES if (
            element is Element.DELETED and not release.revives_tombstones
        ):
            return Effect.FAILS
        case Effect.DELETES if element is not Element.LIVE:
            return Effect.FAILS
        case _:
            return effect
