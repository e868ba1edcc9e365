"""What is to be done about each record of a damaged collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hnswcheck.checks.proof import Grade
from hnswcheck.checks.salvage import Salvage
from hnswcheck.disk.strings import Ints
from hnswcheck.disk.text import text
from hnswcheck.errors import UsageError
from hnswcheck.report import CollectionInfo, Status

#: Grades that a caller may accept instead of proof.
ACCEPTABLE = {g.name.lower(): g for g in Grade if g not in (Grade.LOST, Grade.PROVEN)}
Embed = Callable[[list[str]], Sequence[Sequence[float]]]


@dataclass(frozen=True, slots=True)
class SegmentRepair:
    """One damaged collection, and how its index is made anew.

    Attributes:
        findings: ids of those that count as errors.
        salvage: for every record where its vector is, and how good it is; None if refused for
            another reason.
        use: int64: records whose vector is taken from there.
        embed: int64: records whose document is embedded again.
        leave: int64: records that stay without a vector.
        refused: why nothing is done; empty if it is.
        replaced: the new name of the old folder; None if nothing was done or there was none.
    """

    collection: CollectionInfo
    segment: str
    status: Status
    findings: tuple[str, ...]
    salvage: Salvage | None
    use: Ints
    embed: Ints
    leave: Ints
    refused: str = ""
    replaced: str | None = None

    @property
    def grades(self) -> dict[str, int]:
        """How many records have a best vector of each grade, the best first."""
        if self.salvage is None:
            return {}
        counts = {g.name.lower(): self.salvage.count(g) for g in sorted(Grade, reverse=True)}
        return {name: count for name, count in counts.items() if count}

    def records(self) -> Iterator[tuple[str, str, str]]:
        """(id, source, grade) of every record; "wal", a folder's name, "embedded" or "nowhere"."""
        if self.salvage is None:
            return
        embedded = set(self.embed.tolist())
        for index, id in enumerate(self.salvage.records.ids):
            source = "embedded" if index in embedded else self.salvage.source_name(index)
            yield text(id), source, Grade(int(self.salvage.grades[index])).name.lower()


@dataclass(frozen=True, slots=True)
class Choices:
    """What to do about records without a proven vector.

    Attributes:
        accept: grades that are good enough.
        leave: records may stay without a vector.
        embed: makes vectors of documents.
    """

    accept: frozenset[Grade] = frozenset()
    leave: bool = False
    embed: Embed | None = None

    @classmethod
    def of(cls, accept: Iterable[str], leave: bool, embed: Embed | None) -> Choices:
        """The choices in the words of a caller.

        Raises:
            UsageError: an unknown grade.
        """
        unknown = [name for name in accept if name not in ACCEPTABLE]
        if unknown:
            known = ", ".join(sorted(ACCEPTABLE))
            raise UsageError(f"unknown grade {unknown[0]!r}; there are {known}")
        return cls(frozenset(ACCEPTABLE[name] for name in accept), leave, embed)
