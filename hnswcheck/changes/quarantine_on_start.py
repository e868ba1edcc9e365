"""One call for hosts that look after a store when they start."""

from __future__ import annotations

import logging
import os

from hnswcheck.changes.quarantine import Fate, quarantine
from hnswcheck.errors import HnswcheckError, NotAChromaStore, StoreNotFound

log = logging.getLogger("hnswcheck")


def quarantine_damaged(
    path: str | os.PathLike[str], *, accept_loss: bool = False, wait: float = 0.0
) -> list[str]:
    """Move the damaged segments of a store aside, before a client opens it.

    Says what and why, with exact counts, through the logger "hnswcheck". Never raises for what is
    in the store or who uses it: what cannot be done is logged as an error, and nothing is moved.

    Args:
        path: the persist directory.
        accept_loss: move also where records are searchable only after a repair, then. Without it
            such segments stay where they are, and Chroma may fail on them or die of them.
        wait: seconds to wait for other processes to leave the store.

    Returns:
        The paths of the folders that were moved, where they are now; none for a directory or a
        database that is not there.

    Example:
        >>> import hnswcheck
        >>> hnswcheck.quarantine_damaged("no-such-directory")
        []
    """
    try:
        result = quarantine(path, accept_loss=accept_loss, wait=wait)
    except (StoreNotFound, NotAChromaStore) as error:
        log.debug("%s", error)
        return []
    except HnswcheckError as error:
        log.error("nothing was quarantined: %s", error)
        return []
    for line in result.finished:
        log.warning("%s: %s", result.path, line)
    for fate in result.segments:
        if fate.moved_to:
            log.warning("%s: moved %s to %s: %s", result.path, *_what(fate))
        else:
            log.error("%s: left %s in place (%s): %s", result.path, *_what(fate))
    if not result.report.stores[0].complete:
        log.error("%s: not everything could be judged", result.path)
    return [str(folder) for folder in result.moved]


def _what(fate: Fate) -> tuple[str, str, str]:
    where = f"segment {fate.segment} of collection {fate.collection.name!r} ({fate.status})"
    lost = "an unknown number" if fate.lost is None else f"{fate.lost:,}"
    counts = (
        f"{', '.join(fate.findings)}; without its folder {fate.searchable:,} records are searchable"
        f" from the WAL, {fate.after_repair:,} only after a repair, {lost} have no vector anywhere;"
        f" {fate.phantom:,} ids that are no records are found, too"
    )
    return where, fate.moved_to or fate.kept, counts
