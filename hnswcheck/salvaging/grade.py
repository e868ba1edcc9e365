"""How sure a vector is."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Above every seq_id: the largest int64.
NEVER = (1 << 63) - 1

Grades: TypeAlias = "NDArray[np.uint8]"


class Grade(IntEnum):
    """How good the best vector of a record is; of two, the larger is the better one."""

    LOST = 0  # it is nowhere
    SUSPECT = 1  # an element of several histories, with a delete mark, or beside damage
    OUTDATED = 2  # from before the last operation on the record
    UNCONFIRMED = 3  # nothing speaks for it or against it
    INFERRED = 4  # by an id map that was put together from the order of the records
    PROVEN = 5
