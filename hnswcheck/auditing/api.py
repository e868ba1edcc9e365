"""The audit of one or more persist directories."""

from __future__ import annotations

import os
from collections.abc import Iterable

from hnswcheck.auditing.request import AuditRequest
from hnswcheck.auditing.runner import audit_in_process
from hnswcheck.errors import naming
from hnswcheck.isolation import call_isolated_if_open
from hnswcheck.progress import Progress, silent
from hnswcheck.report import Level, Report
from hnswcheck.store.database import DATABASE


def audit(
    path: str | os.PathLike[str],
    level: Level | str = Level.STANDARD,
    collections: Iterable[str] | None = None,
    *,
    all_ids: bool = False,
    for_release: str | None = None,
    progress: Progress = silent,
) -> Report:
    """Say of every collection in a persist directory whether vector index and records agree.

    Reads only: nothing in the directory is written, created or touched.

    Args:
        path: the persist directory.
        level: "probe" (counts; milliseconds), "standard" (every id, label and link) or "deep"
            (vectors, reachability, sqlite's own checks, hnswlib as a second reader).
        collections: names or ids of the collections to audit; None for all. A name audits every
            collection of that name, in whichever tenant and database.
        all_ids: findings name all ids, not the first 20.
        for_release: judge by the ways of this release of Chroma, as "1.5.9", instead of those of
            the line that wrote the store: can that release open it? "1.5" is its newest release.
        progress: called as bytes are read.

    Raises:
        StoreNotFound, NotAChromaStore: there is no store at ``path``.
        UsageError: an unknown level, collection or release.
        SchemaUnknown, SqliteBusy, StoreChanged, StoreUnreadable, SqliteDamaged: nothing could be
            read. Where at least sqlite's list of collections can be read, what fails is reported.

    Example:
        >>> import hnswcheck
        >>> hnswcheck.audit("no-such-directory")
        Traceback (most recent call last):
        ...
        hnswcheck.errors.StoreNotFound: no-such-directory: no such directory
    """
    request = AuditRequest.of(path, level, collections, all_ids, for_release)
    with naming(path):
        return Report(
            (
                call_isolated_if_open(
                    request.directory / DATABASE, audit_in_process, (request,), progress
                ),
            )
        )
