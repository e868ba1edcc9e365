"""What Chroma 0.x does with damage, where it is something else than what 1.x does.

Each was seen with chromadb 0.6.3: the errors are Python's, where 1.x has words of its own, and much
that ends in an error there goes on here without one.
"""

from __future__ import annotations

from collections.abc import Mapping

from hnswcheck.kinds import FindingId

_FAIL = "Every query, every write and get() with embeddings fail with"
_NONE = (
    'get() with embeddings fails with "list assignment index out of range" or "\'NoneType\' object'
    ' is not subscriptable", or returns fewer vectors than ids'
)

IN_PYTHON: Mapping[FindingId, str] = {
    "segment-folder-missing": (
        "Chroma opens without an error, count() is full, and queries see only what the WAL still"
        f" holds; {_NONE}."
    ),
    "file-missing": (
        f"{_FAIL} \"Cannot open header file\", or of another file by its name. count() still works."
    ),
    "file-truncated": (
        "Chroma loads elements that are not there, and answers from zeroed memory, without an"
        " error."
    ),
    "header-invalid": (
        f"{_FAIL} \"Cannot read persisted index: wrong persistence version\", or the process dies."
    ),
    "header-count-impossible": (
        "Chroma loads elements that are not there, and answers from zeroed memory, without an"
        " error; or the process dies."
    ),
    "id-map-missing": (
        "Chroma opens without an error, sees only what the WAL still holds, and its next flush"
        f" overwrites the vectors; {_NONE}."
    ),
    "id-map-truncated": f"{_FAIL} \"pickle data was truncated\" or \"Ran out of input\".",
    "id-map-invalid": f"{_FAIL} an error of pickle, or with \"has no attribute 'dimensionality'\".",
    "id-map-not-inverse": (
        "Queries return the wrong id for a vector, or fail with a KeyError; get() with embeddings"
        " fails with a KeyError."
    ),
    "label-missing": (
        "Queries miss these records; get() with embeddings fails with \"Label not found\"."
    ),
    "label-tombstoned": (
        "Queries miss these records; get() with embeddings fails with \"Label not found\". A write"
        " to one brings it back."
    ),
    "element-unmapped": "Queries that find a live one fail with a KeyError.",
    "neighbour-out-of-range": (
        "A search that follows one reads beyond the index: SIGSEGV, or it never ends."
    ),
    "entry-point-invalid": (
        "Every query starts beyond the index or on a level that the element lacks: SIGSEGV, empty"
        " answers, or it never ends."
    ),
    "records-missing": f"count() includes them; queries never return them; {_NONE}.",
    "replay-blocked": (
        "No call fails, but the batch with such a deletion stays out of the index: queries miss"
        " its records, and get() with embeddings fails with a KeyError."
    ),
    "watermark-encoding": (
        "Chroma fails with \"object of type 'int' has no len()\", or reads the bytes as a huge"
        " number and ignores every later write."
    ),
    "wal-unreadable": (
        "Queries and writes fail with \"buffer size must be a multiple of element size\", or the"
        " index lacks the vector of the row, and batches with it."
    ),
}  # fmt: skip
