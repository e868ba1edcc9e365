"""The grades of all records with their reasons, and how two sources become one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hnswcheck.formats.arrays import Flags
from hnswcheck.salvaging.grade import Grade, Grades
from hnswcheck.salvaging.reason import Reason

Reasons = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Judged:
    """The grades of the vectors of all records from one source, and the reason of each.

    Attributes:
        grades: uint8 (n,): each a :class:`Grade`.
        reasons: uint8 (n,): each a :class:`Reason`.
    """

    grades: Grades
    reasons: Reasons

    @classmethod
    def nowhere(cls, count: int) -> Judged:
        """Nothing is found yet of any of so many records."""
        return cls(np.zeros(count, np.uint8), np.zeros(count, np.uint8))

    def copy(self) -> Judged:
        """The same with arrays of its own."""
        return Judged(self.grades.copy(), self.reasons.copy())

    def give(self, where: Flags | int, reason: Reason) -> None:
        """Give some records the grade of a reason.

        Args:
            where: bool (n,), or the number of one record.
            reason: any but :attr:`Reason.ACCEPTED_BEFORE`.
        """
        assert reason.grade is not None
        self.grades[where], self.reasons[where] = reason.grade, reason

    def cap(self, best: Grades | Grade, reason: Reason) -> None:
        """Let no grade be better than this.

        Args:
            best: uint8 (n,), or one grade for all.
            reason: why those that are better have to come down.
        """
        above = self.grades > np.uint8(best)
        self.reasons[above] = reason
        np.minimum(self.grades, np.uint8(best), out=self.grades)

    def improve(self, other: Judged) -> Flags:
        """Take over what another source grades better; return bool (n,): where that is so.

        Where both are lost, a damaged element says more than that there is none.
        """
        better = other.grades > self.grades
        both_lost = (self.grades == Grade.LOST) & (other.grades == Grade.LOST)
        said = better | (both_lost & (other.reasons == Reason.VECTOR_DAMAGED))
        self.grades[better] = other.grades[better]
        self.reasons[said] = other.reasons[said]
        return better
