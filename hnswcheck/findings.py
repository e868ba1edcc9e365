"""The registry: every finding there is, what it means, and what to do about it.

Ids never change their meaning and are never used again. The severity says what Chroma does with
such a store: errors break answers, writes or the process; warnings cost something but heal or
harm nothing; info is worth knowing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hnswcheck.consequences import IN_PYTHON
from hnswcheck.kinds import Kind
from hnswcheck.store_findings import KEEP, REPAIR, RESTORE, STORE_KINDS

_KINDS = (
    *STORE_KINDS,
    # --- files -----------------------------------------------------------------------------------
    Kind(
        "segment-folder-missing", "files", "error",
        "the folder of a flushed vector segment is gone",
        "Chroma opens without an error, count() is full, and queries see only what the WAL still"
        " holds; get() with embeddings fails with \"Error finding id\".",
        f"{KEEP} If hnswcheck moved the folder, run hnswcheck restore PATH; never move it by hand."
        " If somebody renamed it, or the log still holds the vectors, run hnswcheck repair PATH."
        " Otherwise restore a backup of one moment.",
    ),
    Kind(
        "file-missing", "files", "error", "a file of the segment is gone",
        "Every call on the collection fails with \"Error loading hnsw index\".", RESTORE,
    ),
    Kind(
        "file-truncated", "files", "error", "a file of the segment is shorter than its elements",
        "Chroma loads elements that are not there: \"Error getting embedding\", \"Error finding"
        " id\", or answers from zeroed memory.", RESTORE,
    ),
    Kind(
        "norms-truncated", "files", "warning",
        "length.bin is shorter than its elements, under a distance without norms",
        "None: under l2 and ip nothing reads the file, and the next flush writes it whole. But it"
        " shows that the files are not from one moment.",
        "Compare with a backup. If this is a copy, take another while no process writes.",
    ),
    Kind(
        "header-invalid", "files", "error", "header.bin cannot be the header of an index",
        "Every call on the collection fails with \"Error loading hnsw index\", or the process"
        " dies.",
        RESTORE,
    ),
    Kind(
        "header-dimension-mismatch", "files", "error",
        "the index holds vectors of another dimension than the collection",
        "The process reads beyond its vectors, or every query fails.",
        f"{RESTORE} The folder may be another collection's.",
    ),
    Kind(
        "header-count-impossible", "files", "error",
        "header.bin counts elements that do not exist or cannot exist",
        "Every call on the collection fails with \"Error loading hnsw index\", or the process"
        " dies.",
        RESTORE,
    ),
    Kind(
        "link-lists-truncated", "files", "error", "link_lists.bin ends before its last record",
        "The loader reads past its input, which can end in SIGSEGV.", RESTORE,
    ),
    Kind(
        "link-lists-invalid", "files", "error", "link_lists.bin holds an impossible record",
        "The loader allocates the size in the record, and later writes go far past the end: files"
        " of hundreds of GB, \"Not enough memory\", SIGSEGV.",
        f"Stop all writers at once: each flush makes it worse. {RESTORE}",
    ),
    Kind(
        "file-oversized", "files", "warning", "a file takes more space than its records",
        "Chroma reads only the records. After a torn write, link_lists.bin is known to grow to"
        " hundreds of GB.",
        "Watch the disk; if link_lists.bin is also invalid, stop all writers.", patchable=True,
    ),
    Kind(
        "next-load-refused", "files", "info", "the next Chroma would refuse to load the index",
        "Up to 1.5.9 Chroma loads it. Pull requests that are open for Chroma check an index before"
        " they load it, and fail every call on the collection with \"Error loading hnsw index\".",
        "Nothing for now. Before an upgrade to a Chroma with such checks, read its release notes; a"
        " copy of the collection's records in a new collection has a new index.",
    ),
    # --- id map ----------------------------------------------------------------------------------
    Kind(
        "id-map-missing", "id map", "error", "index_metadata.pickle is gone",
        "Chroma up to 1.5.9 opens without an error, sees only what the WAL still holds, and its"
        " next flush overwrites the vectors. Its main branch refuses to load the segment.",
        f"Stop all writers at once. {RESTORE}", patchable=True,
    ),
    Kind(
        "id-map-truncated", "id map", "error", "index_metadata.pickle is cut short",
        "Every call on the collection fails with \"Error deserializing pickle file\".", RESTORE,
        patchable=True,
    ),
    Kind(
        "id-map-unsafe", "id map", "error",
        "index_metadata.pickle holds data that Chroma never writes",
        "Chroma before 1.0 executes its content; 1.x fails with \"Error deserializing pickle"
        " file\".",
        f"Do not open this store with chromadb before 1.0 or with pickle. {RESTORE}",
    ),
    Kind(
        "id-map-invalid", "id map", "error", "index_metadata.pickle is not an id map",
        "Every call on the collection fails with \"Error deserializing pickle file\".", RESTORE,
        patchable=True,
    ),
    Kind(
        "id-map-not-inverse", "id map", "error", "the two maps of the id map contradict each other",
        "Queries return the wrong id for a vector, or fail with \"Error finding id\".", RESTORE,
        patchable=True,
    ),
    Kind(
        "id-map-label-out-of-range", "id map", "error",
        "the id map has labels that were never handed out",
        "New records get labels that are in use, so they overwrite other records' vectors.",
        RESTORE,
        patchable=True,
    ),
    Kind(
        "id-map-dimension-mismatch", "id map", "error",
        "the id map names another dimension than the index",
        "Chroma before 1.0 reads vectors at the wrong places or fails to load.", RESTORE,
    ),
    Kind(
        "id-map-too-new", "id map", "error", "Chroma 1.x wrote the id map, and 0.x is to read it",
        "Every query, every write and get() with embeddings fail with \"'dict' object has no"
        " attribute 'dimensionality'\".",
        "Open the store with Chroma 1.x. An index never becomes older again: take a backup from"
        " before the upgrade, or add the records to a new store.",
    ),
    # --- elements --------------------------------------------------------------------------------
    Kind(
        "label-duplicate", "elements", "error", "labels that more than one element carries",
        "Two writers were at work. Opening the collection dies with SIGSEGV, or answers mix"
        " records: a label no longer proves whose vector it is.", RESTORE,
    ),
    Kind(
        "label-missing", "elements", "error", "ids whose label no element carries",
        "Queries miss these records; get() with embeddings fails with \"Error getting embedding\".",
        RESTORE, patchable=True,
    ),
    Kind(
        "label-tombstoned", "elements", "error", "ids whose element is marked deleted",
        "Queries miss these records; get() with embeddings fails; deleting one blocks every later"
        " write.", RESTORE, patchable=True,
    ),
    Kind(
        "element-unmapped", "elements", "error", "elements that the id map does not name",
        "Queries that find a live one fail with \"Error finding id\"; a deleted one blocks the"
        " write that would reuse its label.", RESTORE, patchable=True,
    ),
    Kind(
        "flush-interrupted", "elements", "warning", "the index files are newer than the id map",
        "A flush was interrupted. Chroma up to 1.5.9 replays the WAL over it at the next open and"
        " is whole again; its main branch refuses to load such a segment.",
        "Open the collection once with the Chroma version that wrote it and write until it has"
        " flushed; then audit again. Keep a copy until that audit is clean.",
        means="lagging", passing=True,
    ),
    # --- graph -----------------------------------------------------------------------------------
    Kind(
        "neighbour-out-of-range", "graph", "error", "links to elements that do not exist",
        "A search that follows one reads beyond the index: SIGSEGV.", RESTORE,
    ),
    Kind(
        "neighbour-self", "graph", "warning", "links of an element to itself",
        "Harmless to load; the link is wasted. hnswlib does not write such links, so something else"
        " changed the file.",
        "Compare with a backup; the vectors beside the link may be damaged too.",
    ),
    Kind(
        "neighbour-duplicate", "graph", "info", "link lists that name a neighbour twice",
        "Harmless; the link is wasted. Chroma 1.x leaves a few itself, when one write adds and"
        " updates in parallel.",
        "Nothing.",
    ),
    Kind(
        "degree-too-large", "graph", "error", "link lists that are longer than possible",
        "Searches read vectors as links: SIGSEGV.", RESTORE,
    ),
    Kind(
        "level-inconsistent", "graph", "error",
        "links at a level that the neighbour does not reach",
        "A search that follows one reads memory that is not a link list, which can end in SIGSEGV.",
        RESTORE,
    ),
    Kind(
        "entry-point-invalid", "graph", "error", "searches would start from a wrong element",
        "Every query starts beyond the index or on a level that the element lacks: SIGSEGV, or"
        " empty answers.", RESTORE,
    ),
    Kind(
        "elements-unreachable", "graph", "warning", "elements that no search can reach",
        "Queries never return these records. Sound indexes have some: hnswlib prunes links without"
        " checking whether another link leads to the element.",
        "Nothing for a few in a thousand. If there are more, add the records of this collection to"
        " a new one, with a larger hnsw:M or hnsw:construction_ef.",
    ),
    # --- ledger ----------------------------------------------------------------------------------
    Kind(
        "records-missing", "ledger", "error", "records that the vector index lacks",
        "count() includes them; queries never return them; get() with embeddings fails with"
        " \"Error finding id\".",
        REPAIR, means="diverged", patchable=True,
    ),
    Kind(
        "records-phantom", "ledger", "error", "ids in the vector index that sqlite does not have",
        "Queries return these ids without document and metadata, in the place of real results.",
        REPAIR, means="diverged", patchable=True,
    ),
    Kind(
        "writes-swallowed", "ledger", "error",
        "records with writes in the log that sqlite never applied",
        "The log was emptied, and gave its numbers again: these writes have numbers that the"
        " watermark is past. Chroma skips them at every open, so no answer shows them, and it"
        " deletes them if it purges its log.",
        "Stop all writers and run hnswcheck repair PATH, which sets the watermarks before these"
        " writes, so that Chroma applies them; --plan shows the change first.",
        means="diverged", patchable=True,
    ),
    Kind(
        "replay-blocked", "ledger", "error", "pending deletions that Chroma cannot apply",
        "Every write fails for ever: \"Failed to apply logs to the hnsw segment writer\". A flush"
        " was interrupted after it had deleted these elements.", RESTORE, patchable=True,
    ),
    Kind(
        "lag", "ledger", "info", "operations that wait in the WAL",
        "Chroma replays them at every open, and flushes when there are sync_threshold of them.",
        "Nothing.", means="lagging",
    ),
    Kind(
        "watermark-legacy", "ledger", "info", "the watermark is in the id map, as 0.4 kept it",
        "Chroma from 0.5 on moves it to sqlite when it opens the collection.", "Nothing.",
    ),
    Kind(
        "watermark-missing", "ledger", "error", "an id map without a watermark",
        "Chroma 0.x fails with \"'PersistentData' object has no attribute 'max_seq_id'\" at every"
        " call on the collection.",
        "Stop all writers and run hnswcheck repair PATH, which writes the watermark; --plan shows"
        " the change first.", patchable=True,
    ),
    Kind(
        "watermark-impossible", "ledger", "error", "a watermark that the log cannot have reached",
        "If it is ahead of the log, new writes get lower sequence ids: Chroma accepts them, but"
        " they never become visible. If it is 0, Chroma 0.x never replays what the log still has,"
        " and with an empty log every call fails.",
        "Stop all writers and run hnswcheck repair PATH, which corrects the watermark; --plan shows"
        " the change first.", patchable=True,
    ),
    Kind(
        "watermark-encoding", "ledger", "error", "a watermark that Chroma cannot read",
        "Chroma 1.x fails with \"mismatched types\", or reads the bytes as a huge number and"
        " ignores every later write.",
        "Write the number as this store's Chroma line does: an INTEGER in 1.x, an 8-byte"
        " big-endian BLOB before.", patchable=True,
    ),
    Kind(
        "checkpoint-behind-watermark", "ledger", "error",
        "sqlite takes the index for newer than its id map says it is",
        "Folder and chroma.sqlite3 are of two moments. The Chroma that wrote the id map refuses to"
        " load the index; up to 1.5.9 Chroma loads it, and never applies the writes in between.",
        REPAIR,
    ),
    Kind(
        "checkpoint-ahead-of-log", "ledger", "error",
        "the id map is of an operation that the log cannot have reached",
        "Folder and chroma.sqlite3 are of two moments. New writes get lower sequence ids: Chroma"
        " accepts them, and takes them for applied.",
        REPAIR,
    ),
    Kind(
        "flush-rolled-back", "ledger", "error",
        "an index with vectors of a call that sqlite rolled back",
        "A process of Chroma 0.x died between the files and the commit. Queries return ids or"
        " vectors of a call that never was, and adds of these ids are ignored.",
        REPAIR, means="diverged",
    ),
    Kind(
        "wal-unreadable", "ledger", "error", "pending rows in the WAL that Chroma cannot read",
        "Replay stops at such a row: every call on the collection fails or the process panics.",
        "On a copy, delete or correct the row, then audit again.",
    ),
    # --- vectors ---------------------------------------------------------------------------------
    Kind(
        "vector-not-finite", "vectors", "error",
        "vectors with components that are not finite numbers",
        "Their distances are not numbers: queries miss these records or rank others wrongly.",
        "Update these ids with their embeddings. Chroma before 1.0 accepted such vectors; if"
        " these vectors were finite when they were added, the file is damaged and other vectors may"
        " be, too.",
    ),
    Kind(
        "vector-not-normalised", "vectors", "error",
        "vectors under cosine whose length is not 1",
        "Queries rank these records wrongly, and get() returns a wrong vector.",
        f"{KEEP} Update these ids with their embeddings.",
    ),
    Kind(
        "norm-invalid", "vectors", "error", "norms under cosine that no vector can have",
        "get() returns zeros or NaN for these records; queries are right.",
        f"{KEEP} Update these ids with their embeddings.",
    ),
    Kind(
        "vector-differs-from-wal", "vectors", "error",
        "vectors that differ from the log's vectors of the same records",
        "One of the two is damaged, or the whole index belongs to another collection or moment; the"
        " log has no copy of most vectors. Queries rank by the vectors in the index."
        " Chroma itself loses a write in two cases: an update of the only element an index has, and"
        " in 0.5 and 0.6 an add after the id was deleted, added and deleted in one batch.",
        f"{KEEP} Update these ids with their embeddings.",
    ),
    # --- second reader ---------------------------------------------------------------------------
    Kind(
        "second-reader-disagrees", "second reader", "error",
        "hnswlib cannot load the index, or does not read the same as hnswcheck",
        "Chroma loads the same files with a fork of hnswlib.",
        f"If there is no other error, report it with a copy of the segment folder. {RESTORE}",
    ),
    Kind(
        "searches-miss", "second reader", "info",
        "searches that do not find a record by its own vector",
        "Search in HNSW is approximate; sound indexes miss some.",
        "Nothing for a few. If there are more, raise hnsw:search_ef, or add the records to a new"
        " collection with a larger hnsw:M.",
    ),
    Kind(
        "second-reader-not-asked", "second reader", "info", "hnswlib was not asked",
        "Only hnswcheck judged the index.",
        "To have a second reader, install hnswcheck[hnswlib] or make room.",
    ),
)  # fmt: skip

REGISTRY: Mapping[str, Kind] = {
    kind.id: replace(kind, in_python=IN_PYTHON.get(kind.id, "")) for kind in _KINDS
}
