"""What replaying the log does to an index: which ids it has afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from hnswcheck.formats.arrays import Flags
from hnswcheck.formats.id_map import IdMap
from hnswcheck.formats.strings import find
from hnswcheck.replay.batches import comes_back, present_after
from hnswcheck.replay.effects import Effect, Element, effect_on_element, effect_on_record
from hnswcheck.store.releases import Release, counts_readded
from hnswcheck.store.settings import DeclaredSettings
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


@dataclass(slots=True, kw_only=True)
class _Elements:
    """The elements that replay meets on its way, and what it does to them.

    Attributes:
        at: position in the id map of each id; None where replay handed out a new label.
        handed_out: how many labels replay handed out.
        alive: positions whose element replay wrote.
        revived, blocked: see :class:`Replay`.
    """

    marks: Marks | None
    release: Release
    at: dict[bytes, int | None]
    handed_out: int = 0
    alive: set[int] = field(default_factory=set)
    revived: set[int] = field(default_factory=set)
    blocked: dict[bytes, None] = field(default_factory=dict)

    def create(self, id: bytes) -> None:
        """Hand out a label, which an element may have that the id map never named."""
        self.at[id] = None
        self.handed_out += 1
        marks = self.marks
        if marks and marks.last_label + self.handed_out in marks.dead_labels:
            self._outcome(id, Effect.CREATES, Element.DELETED)

    def write(self, id: bytes) -> None:
        """Write a vector into the element of an id, and make it one that is live."""
        position = self.at[id]
        if self.marks is None or position is None:
            return
        element = self._element(self.marks, position)
        if self._outcome(id, Effect.WRITES, element) is not Effect.FAILS:
            self.alive.add(position)
            if element is not Element.LIVE:
                self.revived.add(position)

    def delete(self, id: bytes) -> None:
        """Mark the element of an id; the id map forgets it."""
        position = self.at[id]
        if self.marks is not None and position is not None:
            self._outcome(id, Effect.DELETES, self._element(self.marks, position))

    def _element(self, marks: Marks, position: int) -> Element:
        if position in self.alive or not marks.undeletable[position]:
            return Element.LIVE
        return Element.DELETED if marks.tombstoned[position] else Element.ABSENT

    def _outcome(self, id: bytes, effect: Effect, element: Element) -> Effect:
        outcome = effect_on_element(effect, element, self.release)
        if outcome is Effect.FAILS:
            self.blocked[id] = None
        return outcome


def replay_index(
    rows: Sequence[WalRow],
    start: int,
    id_map: IdMap | None,
    marks: Marks | None,
    release: Release,
    settings: Callable[[], DeclaredSettings] | None = None,
) -> Replay:
    """Apply the rows past ``start`` to the ids of the index.

    Asks which ids the index has afterwards, how many labels that takes, and where an element that
    is not live stands in the way. Ids come and go as those of records do, but for what the batches
    of 0.x forget; a row that Chroma cannot read, which ends its replay, counts here as if it could.

    Args:
        id_map: of the folder that is replayed into.
        marks: None where the elements were not read, or where replay starts a new index.
        settings: of the collection, for the batches of 0.x; None for a replay without any, which
            says what the log means.
    """
    pending = [row for row in rows if row.seq_id > start]
    base = {} if id_map is None else find((r.id for r in pending), id_map.id_to_label.ids)
    present = {row.id: row.id in base for row in pending}
    elements = _Elements(marks=marks, release=release, at=dict(base))
    for row in pending:
        match effect_on_record(row, present[row.id]):
            case Effect.CREATES:
                present[row.id] = True
                elements.create(row.id)
            case Effect.CHANGES if row.vector_bytes is not None:
                elements.write(row.id)
            case Effect.DELETES:
                present[row.id] = False
                elements.delete(row.id)
            case _:
                pass
    handed_out = elements.handed_out
    if id_map is not None and counts_readded(id_map.shape):
        handed_out = sum(row.operation in ("add", "upsert") for row in pending)
    if settings and release.batches is not None and comes_back(pending):
        present = present_after(pending, base.keys(), settings().batch_size, release.batches)
    return Replay(handed_out, present, frozenset(elements.revived), tuple(elements.blocked))
