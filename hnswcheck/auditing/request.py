"""What a caller asks of an audit."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hnswcheck.errors import UsageError
from hnswcheck.report import Level
from hnswcheck.store.openers import known_release


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """What a caller asks of an audit.

    Attributes:
        directory: the persist directory.
        collections: names or ids of the collections to audit; None for all.
        all_ids: findings name all ids, not the first 20.
        salvages: the audit also looks for the vectors of damaged collections.
        release: the release of Chroma that is to open the store; None for the line that wrote it.
    """

    directory: Path
    level: Level = Level.STANDARD
    collections: tuple[str, ...] | None = None
    all_ids: bool = False
    salvages: bool = True
    release: str | None = None

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        level: Level | str,
        collections: Iterable[str] | None,
        all_ids: bool = False,
        release: str | None = None,
    ) -> AuditRequest:
        """The request that a caller makes in words.

        Raises:
            UsageError: an unknown level or release, or no collection at all.
        """
        opener = None if release is None else known_release(release)
        if collections is not None:
            collections = (collections,) if isinstance(collections, str) else tuple(collections)
            if not collections:
                raise UsageError("the list of collections is empty: there is nothing to audit")
        try:
            return cls(
                directory=Path(path),
                level=Level(level),
                collections=collections,
                all_ids=all_ids,
                release=opener,
            )
        except ValueError:
            known = ", ".join(Level)
            raise UsageError(f"unknown level {str(level)!r}; the levels are {known}") from None
