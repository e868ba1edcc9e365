"""Whose the elements of one folder are, with all that grading has to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from hnswcheck.formats.arrays import Flags, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderAssignment:
    """What is known of a folder, laid beside the records.

    Attributes:
        element: int64 (n,): each record's element, -1 where it has none.
        tombstoned: bool (n,): that element is marked deleted.
        doubtful: bool (n,): damage that changed labels may have reached it.
        damaged: bool (n,): its vector cannot be what Chroma stored.
        label_twice: bool (n,): another element carries the label, or did before it was righted.
        scaleless: bool (n,): only the direction of its vector is known, under cosine.
        mapped: bool (n,): the folder's id map names the record.
        whole_map: the id map was read to its end, so a record that it lacks was made later.
        names_unknown_ids: it names ids that neither sqlite nor the log knows: deleted since, or,
            where the folder is newer than sqlite, not made yet.
        mixed: elements or labels of several histories.
        belongs: the log has the vector of one of its elements, or all counts agree.
        as_of: the operation up to which it reflects all, and none after; None if not known.
        covered: the log still has all that came after.
        after: an operation that it certainly reflects; 0 if none is known.
        guessed: bool (n,): the element follows from the order of the records, unconfirmed.
        disputed: bool (n,): the id map contradicts itself, or the order, about the element.
        undone: a flush of it was cut short, and the log has forgotten the call.
        by_order: the elements follow from the order of the records, not from an id map.
        earlier: elements of an earlier flush, which some of its files may be of; 0 if none is.
    """

    element: Ints
    tombstoned: Flags
    doubtful: Flags
    damaged: Flags
    label_twice: Flags
    scaleless: Flags
    mapped: Flags
    whole_map: bool
    names_unknown_ids: bool
    mixed: bool
    belongs: bool
    as_of: int | None
    covered: bool
    after: int
    guessed: Flags
    disputed: Flags
    undone: bool
    by_order: bool
    earlier: int
