"""What is to become of records without a proven vector."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hnswcheck.errors import UsageError
from hnswcheck.repairing.embedder import Embedding
from hnswcheck.salvaging.grade import Grade

#: Grades that a caller may accept instead of proof.
ACCEPTABLE = {g.name.lower(): g for g in Grade if g not in (Grade.LOST, Grade.PROVEN)}


@dataclass(frozen=True, slots=True)
class Choices:
    """What to do about records without a proven vector.

    Attributes:
        accept: grades that are good enough.
        leave: records may stay without a vector.
        embed: how vectors are made of documents; None if they are not.
        drop: records without a vector go.
    """

    accept: frozenset[Grade] = frozenset()
    leave: bool = False
    embed: Embedding | None = None
    drop: bool = False

    @classmethod
    def of(cls, accept: Iterable[str], leave: bool, embed: Embedding | None, drop: bool) -> Choices:
        """The choices in the words of a caller.

        Raises:
            UsageError: an unknown grade, or records that are to stay and to go.
        """
        if leave and drop:
            raise UsageError("--leave-unindexed and --drop-records exclude each other: choose one")
        unknown = [name for name in accept if name not in ACCEPTABLE]
        if unknown:
            known = ", ".join(sorted(ACCEPTABLE))
            raise UsageError(f"unknown grade {unknown[0]!r}; the grades are {known}")
        return cls(frozenset(ACCEPTABLE[name] for name in accept), leave, embed, drop)
