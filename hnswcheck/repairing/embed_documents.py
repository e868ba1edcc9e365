"""Documents embedded again, all of them before anything in a store is changed.

Each document is asked for once, in batches, and its vector is on disk before the next batch
begins; a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hnswcheck.changes.lock import reading
from hnswcheck.errors import RepairRefused, StoreChanged
from hnswcheck.formats.arrays import Floats, Ints
from hnswcheck.progress import Progress
from hnswcheck.repairing.embedder import Embed, Embedder, Embedding, in_short
from hnswcheck.repairing.segment_plan import SegmentPlan
from hnswcheck.repairing.vector_cache import KeptVectors, Origin, kept_vectors
from hnswcheck.store.database import Database
from hnswcheck.store.documents import PAGE_DOCUMENTS, read_documents
from hnswcheck.store.view import open_store

#: Documents of an earlier run that are embedded once more, to see whether the function is the same.
PROBES = 4
#: How far the second vector of a document may be from the first, relative to its length. Models on
#: other people's machines do not answer twice the same; another model is far further away.
NEAR = 0.02


@dataclass(frozen=True, slots=True)
class Embedded:
    """The new vectors of one collection.

    Attributes:
        places: int64 (n,): the number in ``kept`` of each record that is embedded again, in the
            order of :attr:`RecordFates.embed`.
    """

    kept: KeptVectors
    places: Ints

    def read(self, which: Ints) -> Floats:
        """float32 (k, dimension): vectors, by their position in ``places``."""
        return self.kept.read(self.places[which])


@contextmanager
def embedded(
    root: Path, plans: Sequence[SegmentPlan], wish: Embedding | None, progress: Progress
) -> Iterator[dict[str, Embedded]]:
    """The vectors of all documents that are to be embedded again, by segment.

    Raises:
        RepairRefused: a function failed, or gave what no index can hold. What was embedded before
            is kept for the next run.
        ActionFailed, StoreUnreadable: there is no room for the vectors.
        StoreChanged: documents are no longer there.
    """
    with ExitStack() as stack:
        found: dict[str, Embedded] = {}
        for plan in plans:
            embedder = plan.fates.embedder
            if wish is not None and embedder is not None and len(plan.fates.embed):
                found[plan.segment] = _embed(root, plan, embedder, wish, progress, stack)
        yield found


def _embed(
    root: Path,
    plan: SegmentPlan,
    embedder: Embedder,
    wish: Embedding,
    progress: Progress,
    stack: ExitStack,
) -> Embedded:
    """The vectors of one collection; the stack closes what they are kept in."""
    rowids = plan.fates.salvage.records.rowids[plan.fates.embed]
    origin = Origin(plan.collection.id, embedder.identity, plan.dimension)
    with reading(root), open_store(root) as store:
        kept = stack.enter_context(kept_vectors(origin, root, wish.tell))
        work = _Work(kept, embedder, plan.dimension, _Source(store.database, rowids))
        if not work.is_still_true():
            kept.forget()
            wish.tell(
                f"{embedder.label} gives other vectors than in the run that was interrupted:"
                " all documents are embedded anew"
            )
        places = work.run(wish.batch, progress, f"embedding {plan.collection.name}")
    return Embedded(kept, places)


@dataclass(frozen=True, slots=True)
class _Source:
    """Documents of records, a page at a time."""

    database: Database
    rowids: Ints

    def __iter__(self) -> Iterator[tuple[bytes, str]]:
        """(SHA-256, document) of each record."""
        for begin in range(0, len(self.rowids), PAGE_DOCUMENTS):
            page = self.rowids[begin : begin + PAGE_DOCUMENTS]
            documents = read_documents(self.database, page)
            for rowid in page.tolist():
                if rowid not in documents:
                    raise StoreChanged(
                        "documents were deleted while they were read; nothing was changed"
                    )
                document = documents[rowid]
                digest = hashlib.sha256(document.encode("utf-8", "surrogatepass")).digest()
                yield digest, document


@dataclass(frozen=True, slots=True)
class _Work:
    kept: KeptVectors
    embedder: Embedder
    dimension: int
    documents: _Source

    def is_still_true(self) -> bool:
        """Whether the function still gives the vectors that an earlier run left."""
        if not self.kept.places:
            return True
        probes: dict[bytes, str] = {}
        for digest, document in self.documents:
            if digest in self.kept.places:
                probes[digest] = document
            if len(probes) == PROBES:
                break
        if not probes:
            return True
        made = ask(self.embedder.function, list(probes.values()), self.dimension)
        left = self.kept.read(np.array([self.kept.places[digest] for digest in probes], np.int64))
        apart = np.linalg.norm(made.astype(np.float64) - left, axis=1)
        length = np.linalg.norm(left.astype(np.float64), axis=1)
        return bool((apart <= NEAR * length).all())

    def run(self, batch: int, progress: Progress, what: str) -> Ints:
        """int64 (n,): the number of each record's vector, all of which are there then."""
        total = len(self.documents.rowids)
        places = np.empty(total, np.int64)
        waiting: dict[bytes, tuple[int, str]] = {}  # with the number that its vector will have
        first = len(self.kept.places)
        for at, (digest, document) in enumerate(self.documents):
            if digest in self.kept.places:
                places[at] = self.kept.places[digest]
                continue
            place, _ = waiting.setdefault(digest, (first + len(waiting), document))
            places[at] = place
            if len(waiting) == batch:
                self._flush(waiting)
                first = len(self.kept.places)
                progress(at + 1, total, what)
        self._flush(waiting)
        progress(total, total, what)
        return places

    def _flush(self, waiting: dict[bytes, tuple[int, str]]) -> None:
        if waiting:
            documents = [document for _, document in waiting.values()]
            made = ask(self.embedder.function, documents, self.dimension)
            self.kept.add(list(waiting), made)
            waiting.clear()


def ask(function: Embed, documents: list[str], dimension: int) -> Floats:
    """float32 (n, dimension): the vectors of documents, looked at.

    Raises:
        RepairRefused: the function failed, or these are none that the collection could have.
    """
    try:
        given = function(list(documents))
    except (Exception, SystemExit) as error:
        raise _refusal(f"failed: {in_short(error)}") from error
    try:
        with np.errstate(all="ignore"):  # a number that float32 cannot hold is seen below
            made = np.asarray(given, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise _refusal(f"gave no vectors of one length for {len(documents)} documents") from error
    if made.ndim != 2:
        raise _refusal(f"gave an array of shape {made.shape}, not one vector per document")
    if len(made) != len(documents):
        raise _refusal(f"gave {len(made)} vectors for {len(documents)} documents")
    if made.shape[1] != dimension:
        raise _refusal(
            f"gave vectors of {made.shape[1]} dimensions; the collection has {dimension} dimensions"
        )
    if bad := int(np.count_nonzero(~np.isfinite(made).all(axis=1))):
        raise _refusal(f"gave {bad} vectors that are not finite")
    return made


def _refusal(what: str) -> RepairRefused:
    return RepairRefused(f"the embedding function {what}; nothing was changed")
