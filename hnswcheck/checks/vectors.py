"""Are the vectors numbers, of the length that the distance wants, and those of the log?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hnswcheck.formats.arrays import Flags, Floats
from hnswcheck.formats.level0 import TOMBSTONE, Chunk
from hnswcheck.kinds import FindingId

#: Chroma normalises in float32, one component after the other.
NORM_TOLERANCE = 1e-3

#: The same for a vector that was normalised, stored, and multiplied by its norm again.
WAL_TOLERANCE = 1e-4

#: Chroma's norm is the root of a float32 sum of squares, which is exact between these lengths.
LEAST_NORM, MOST_NORM = 1.1e-19, 1.84e19


class VectorFaults:
    """Live elements with a faulty vector, found chunk by chunk.

    Attributes:
        elements: per finding, the elements that have it.
    """

    def __init__(self, norms: Floats | None) -> None:
        """Begin with no fault.

        Args:
            norms: float32 (count,), content of length.bin; None under a distance without norms.
        """
        self.norms = norms
        self.elements: dict[FindingId, list[int]] = {}

    def visit(self, chunk: Chunk) -> None:
        """Judge the vectors of some elements."""
        vectors = chunk.elements["vector"]
        live = chunk.elements["flags"] & TOMBSTONE == 0
        with np.errstate(all="ignore"):
            squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
        finite = np.isfinite(squares)
        if not finite.all():  # a square can be too large where no component is
            finite[~finite] = np.isfinite(vectors[~finite]).all(axis=1)
        self._add("vector-not-finite", live & ~finite, chunk.first)
        if self.norms is None:
            return
        norms = self.norms[chunk.first : chunk.first + len(vectors)]
        unit = np.abs(np.sqrt(squares) - 1) <= NORM_TOLERANCE
        # Of a tiny vector Chroma's norm is too small or 0; of a huge one it stores zeros.
        tiny = (norms >= 0) & (norms <= LEAST_NORM)
        judged = live & finite & (squares > 0) & (unit | ~tiny)
        self._add("vector-not-normalised", judged & ~unit, chunk.first)
        self._add("norm-invalid", judged & ~(np.isfinite(norms) & (norms > 0)), chunk.first)

    def _add(self, kind: FindingId, faulty: Flags, first: int) -> None:
        if faulty.any():
            found = (np.flatnonzero(faulty) + first).tolist()
            self.elements.setdefault(kind, []).extend(found)


def differs(stored: Floats, norm: float | None, logged: Floats) -> bool:
    """Whether an element holds another vector than the log.

    Args:
        stored: float32 (dimension,), as in data_level0.bin.
        norm: its entry in length.bin under cosine, where stored vectors are normalised; else None.
        logged: float32 (dimension,), as it was added.
    """
    if norm is None:
        return stored.tobytes() != logged.tobytes()
    with np.errstate(all="ignore"):
        length = np.linalg.norm(logged.astype(np.float64))
        if length and not LEAST_NORM < length < MOST_NORM:
            return False  # Chroma itself stores another
        distance = np.linalg.norm(stored.astype(np.float64) * norm - logged)
        return not distance <= WAL_TOLERANCE * length


def faulty_places(faults: VectorFaults) -> Iterator[tuple[FindingId, list[int]]]:
    """(finding, elements) in the order of the registry."""
    kinds: tuple[FindingId, ...] = ("vector-not-finite", "vector-not-normalised", "norm-invalid")
    for kind in kinds:
        if kind in faults.elements:
            yield kind, faults.elements[kind]
