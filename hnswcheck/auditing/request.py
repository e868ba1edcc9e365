"""What is asked of an audit."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hnswcheck.errors import UsageError
from hnswcheck.report import Level


@dataclass(frozen=True, slots=True)
class Question:
    """What an audit is asked.

    Attributes:
        salvages: it looks for the vectors of what is damaged, too.
    """

    directory: Path
    level: Level = Level.STANDARD
    collections: tuple[str, ...] | None = None
    all_ids: bool = False
    salvages: bool = True

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        level: Level | str,
        collections: Iterable[str] | None,
        all_ids: bool = False,
    ) -> Question:
        """The question in the words of a caller.

        Raises:
            UsageError: an unknown level, or no collection at all.
        """
        if collections is not None:
            collections = (collections,) if isinstance(collections, str) else tuple(collections)
            if not collections:
                raise UsageError("an empty list of collections: nothing to audit")
        try:
            return cls(Path(path), Level(level), collections, all_ids)
        except ValueError:
            known = ", ".join(Level)
            raise UsageError(f"unknown level {str(level)!r}; there are {known}") from None
