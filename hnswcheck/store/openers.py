"""Which stores each release of Chroma opens: one row for each range of releases that refuse alike.

A release that is older than a store mostly looks no further than the migrations that it knows, so
what it refuses, and how, was tried with the releases themselves. Sources in chroma-core/chroma: of
0.x ``chromadb/db/migrations.py``, ``chromadb/db/mixins/sysdb.py``,
``chromadb/api/configuration.py`` and ``chromadb/segment/impl/vector/hnsw_params.py``; of 1.x
``rust/sqlite/src/db.rs`` and ``chromadb/api/collection_configuration.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from hnswcheck.errors import UsageError
from hnswcheck.store.releases import STEPS, Release, numbers_of, release_for
from hnswcheck.store.system_tables import Value


def _whole(least: int) -> Callable[[Value], bool]:
    return lambda value: isinstance(value, int) and value >= least


#: The settings of an index that a collection may have as metadata, and what they may be.
_IN_MEMORY: Mapping[str, Callable[[Value], bool]] = {
    "hnsw:space": lambda value: value in ("l2", "cosine", "ip"),
    "hnsw:construction_ef": _whole(1),
    "hnsw:search_ef": _whole(1),
    "hnsw:M": _whole(1),
    "hnsw:num_threads": _whole(1),
    "hnsw:resize_factor": lambda value: isinstance(value, float) and value >= 1,
}
_PERSISTED = {**_IN_MEMORY, "hnsw:batch_size": _whole(3), "hnsw:sync_threshold": _whole(3)}
DEFAULT_BATCH_SIZE = 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opener:
    """What a range of releases refuses.

    Attributes:
        first, last: the range.
        newest: of some directories, the newest migration with which the releases work.
        beyond: what they say of a newer one.
        of_own_kind: they open only stores with the first migration of metadb as 0.4.0 has it,
            which all others refuse.
        settings: what a collection without a configuration may have as metadata, and which values;
            None where the releases do not look.
        orders_batches: of these, batch_size must be at most sync_threshold.
        orders_configured: in the configuration that 1.x writes, batch_size must be at most
            sync_threshold.
        types_settings: a configuration must say of which type it is, which only 0.5 and 0.6 write.
        reads_schemas: the settings of a collection in its schema are known; else the distance is
            l2, whatever the schema says.
    """

    first: str
    last: str
    newest: Mapping[str, int] = field(default_factory=dict)
    beyond: str = ""
    of_own_kind: bool = False
    settings: Mapping[str, Callable[[Value], bool]] | None = None
    orders_batches: bool = False
    types_settings: bool = False
    orders_configured: bool = False
    reads_schemas: bool = True

    @property
    def release(self) -> Release:
        """The line that the releases are of."""
        return release_for(self.last)

    @property
    def is_single(self) -> bool:
        """Whether it is one release."""
        return self.first == self.last


_TOPICS = Opener(
    first="0.4.0",
    last="0.4.0",
    newest={"sysdb": 4},
    beyond="no such column: collections.topic",
    of_own_kind=True,
)
_CONFIGURED = Opener(first="0.5.4", last="0.5.4", settings=_IN_MEMORY, types_settings=True)
_ORDERED = replace(
    _CONFIGURED, first="0.5.5", last="0.5.5", settings=_PERSISTED, orders_batches=True
)
_COUNTED = Opener(
    first="1.0.6",
    last="1.0.20",
    newest={"embeddings_queue": 2, "sysdb": 9, "metadb": 5},
    beyond="range start index out of range",
)

#: Oldest first; together all releases that are known.
OPENERS = (
    _TOPICS,
    replace(_TOPICS, first="0.4.1", last="0.4.24", of_own_kind=False),
    Opener(first="0.5.0", last="0.5.3"),
    _CONFIGURED,
    _ORDERED,
    replace(_ORDERED, first="0.5.6", last="0.6.3"),
    replace(_COUNTED, first="1.0.0", last="1.0.5", orders_configured=True),
    _COUNTED,
    replace(_COUNTED, first="1.0.21", last="1.2.1"),
    Opener(first="1.2.2", last="1.2.2", reads_schemas=False),
    Opener(first="1.3.0", last="1.3.5"),
    Opener(first="1.3.6", last="1.4.1"),
    Opener(first="1.5.0", last="1.5.9"),
)

#: The newest release of each minor version.
_NEWEST = ("0.4.24", "0.5.23", "0.6.3", "1.0.21", "1.1.1", "1.2.2", "1.3.7", "1.4.1", "1.5.9")


def known_release(version: str) -> str:
    """The release that a version names; where it leaves numbers out, the newest that it can mean.

    Raises:
        UsageError: there is no such release, or none that is known.
    """
    if re.fullmatch(r"\d{1,5}(\.\d{1,5}){0,2}", version):
        numbers = numbers_of(version)
        for newest in reversed(_NEWEST):
            limit = numbers_of(newest)
            if numbers == limit[: len(numbers)]:
                return newest
            if len(numbers) == len(limit) and limit[:2] == numbers[:2] and numbers < limit:
                return version
    first, last = STEPS[0].first, STEPS[-1].last
    raise UsageError(f"unknown release of Chroma {version!r}; known are {first} to {last}")


def opener_of(version: str) -> Opener:
    """The range that a known release is of."""
    numbers = numbers_of(version)
    return next(o for o in reversed(OPENERS) if numbers_of(o.first) <= numbers)


def spans(openers: list[Opener]) -> tuple[str, ...]:
    """Ranges as reports have them, what follows on each other as one.

    Args:
        openers: some of :data:`OPENERS`, in their order.
    """
    found: list[tuple[str, str]] = []
    before: Opener | None = None
    for opener in openers:
        if before is not None and OPENERS.index(opener) == OPENERS.index(before) + 1:
            found[-1] = (found[-1][0], opener.last)
        else:
            found.append((opener.first, opener.last))
        before = opener
    return tuple(f"{a} to {b}" if a != b else a for a, b in found)
