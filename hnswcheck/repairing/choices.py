"""What the caller of a repair chooses: what becomes of which records, and who verifies it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from hnswcheck.errors import UsageError
from hnswcheck.repairing.embedder import Embedding
from hnswcheck.salvaging.grade import Grade

#: Grades that a caller may accept instead of proof, by their names.
ACCEPTABLE = {g.name.lower(): g for g in Grade if g not in (Grade.LOST, Grade.PROVEN)}


class Verify(StrEnum):
    """What must be content with a new index, else the old one comes back; the weakest first.

    Chroma is asked after an audit.
    """

    NONE = "none"
    AUDIT = "audit"
    CHROMA = "chroma"


@dataclass(frozen=True, slots=True)
class Choices:
    """What to do about records without a proven vector.

    Attributes:
        accept: grades that are good enough.
        leave: records without an acceptable vector stay, but not in the index.
        embed: how documents are embedded again; None if they are not.
        drop: records without an acceptable vector are deleted.
    """

    accept: frozenset[Grade] = frozenset()
    leave: bool = False
    embed: Embedding | None = None
    drop: bool = False

    @classmethod
    def of(cls, accept: Iterable[str], leave: bool, embed: Embedding | None, drop: bool) -> Choices:
        """The choices that a caller makes in words.

        Raises:
            UsageError: there is no such grade, or records shall both stay and be deleted.
        """
        if leave and drop:
            raise UsageError("--leave-unindexed and --drop-records exclude each other: choose one")
        unknown = [name for name in accept if name not in ACCEPTABLE]
        if unknown:
            known = ", ".join(sorted(ACCEPTABLE))
            raise UsageError(f"unknown grade {unknown[0]!r}; the grades are {known}")
        return cls(frozenset(ACCEPTABLE[name] for name in accept), leave, embed, drop)
