"""What is to be done about each record of a damaged collection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hnswcheck.formats.arrays import Ints
from hnswcheck.formats.text import text
from hnswcheck.kinds import Status
from hnswcheck.repairing.choices import ACCEPTABLE
from hnswcheck.repairing.embedder import Embedder
from hnswcheck.repairing.patch import Mend
from hnswcheck.replay.balance import Balance
from hnswcheck.report import CollectionInfo
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.reason import Reason
from hnswcheck.salvaging.sources import Salvaged
from hnswcheck.store.manifest import as_text


class RecordGrade(NamedTuple):
    """Where the best vector of a record is, and how sure that vector is.

    Attributes:
        source: "wal", the name of a folder, "embedded" or "nowhere".
        grade: the name of a :class:`Grade`, such as "suspect".
        reason: why it has that grade: the slug of a :class:`Reason`, such as "label-twice".
    """

    id: str
    source: str
    grade: str
    reason: str


@dataclass(frozen=True, slots=True)
class SegmentRepair:
    """One damaged collection, and how its index is made anew.

    Attributes:
        findings: ids of those that count as errors.
        salvage: for every record where its vector is, and how good it is; None if refused for
            another reason.
        use: int64: records whose vector is taken from there.
        embed: int64: records whose document is embedded again.
        leave: int64: records that stay, without a vector.
        drop: int64: records that go.
        mend: what is enough; None for a new index.
        present: account 1 of the old index; None if unknown.
        refused: why nothing is done; empty if it is.
        replaced: the new name of the old folder; None if nothing was done or there was none.
        exported: the file that has the records that went; None if none did.
        embedder: what embeds the documents; None if there are none to embed.
        verified: what was content with the new index: "none", "audit" or "chroma"; empty if
            nothing was done.
        not_asked: why Chroma was not asked, where nobody chose that.
    """

    collection: CollectionInfo
    segment: str
    metadata_segment: str | None
    status: Status
    findings: tuple[str, ...]
    salvage: Salvaged | None
    use: Ints
    embed: Ints
    leave: Ints
    drop: Ints
    mend: Mend | None = None
    present: Balance | None = None
    refused: str = ""
    replaced: str | None = None
    exported: str | None = None
    embedder: Embedder | None = None
    verified: str = ""
    not_asked: str = ""

    @property
    def grades(self) -> dict[str, int]:
        """How many records have a best vector of each grade, the best first."""
        if self.salvage is None:
            return {}
        counts = {g.name.lower(): self.salvage.count(g) for g in sorted(Grade, reverse=True)}
        return {name: count for name, count in counts.items() if count}

    @property
    def accepted(self) -> dict[str, tuple[str, ...]]:
        """By grade, the ids of records whose vector is used without proof."""
        found = self.salvage
        if found is None:
            return {}
        grades = found.grades[self.use]
        return {
            grade.name.lower(): tuple(
                map(as_text, found.records.ids.take(self.use[grades == grade]))
            )
            for grade in ACCEPTABLE.values()
            if (grades == grade).any()
        }

    @property
    def unindexed(self) -> Ints:
        """int64: records that have no vector in the new index."""
        return np.sort(np.concatenate([self.leave, self.drop]))

    def steps(self) -> Iterator[str]:
        """What is done, a line each; nothing where it is refused."""
        if self.salvage is None or self.refused:
            return
        if self.mend is not None:
            yield from self.mend.describe()
        else:
            parts = [f"{len(self.use):,} vectors that still exist"]
            if self.embedder is not None:
                parts.append(
                    f"{len(self.embed):,} documents embedded again by {self.embedder.label}"
                )
            yield f"build a new index: {', '.join(parts)}"
        if self.salvage.skipped:
            yield f"pass over {self.salvage.skipped:,} unreadable rows of the log"
        if self.salvage.metadata_start is not None:
            yield f"set METADATA's watermark to {self.salvage.metadata_start}"
        if len(self.leave):
            yield f"leave {len(self.leave):,} records out of the index"
        if len(self.drop):
            yield f"delete {len(self.drop):,} records after writing them to a file"

    @property
    def reasons(self) -> dict[Grade, dict[Reason, int]]:
        """How many records have a best vector of each grade, by the reason of the grade."""
        return {} if self.salvage is None else self.salvage.reasons_by_grade()

    def records(self) -> Iterator[RecordGrade]:
        """What was found of every record."""
        if self.salvage is None:
            return
        embedded = set(self.embed.tolist())
        for index, id in enumerate(self.salvage.records.ids):
            source = "embedded" if index in embedded else self.salvage.source_name(index)
            grade = Grade(int(self.salvage.grades[index])).name.lower()
            reason = Reason(int(self.salvage.reasons[index])).slug
            yield RecordGrade(text(id), source, grade, reason)
