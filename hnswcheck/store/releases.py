"""What differs between the releases of Chroma."""

from __future__ import annotations

from dataclasses import dataclass

from hnswcheck.formats.id_map import Shape

#: The first release known to read what a line of releases wrote.
OLDEST_READERS = {"0.4": (0, 4, 24), "0.6": (0, 5, 23), "1.0": (1, 0), "1.5": (1, 5)}


@dataclass(frozen=True, slots=True)
class Line:
    """What a line of Chroma's releases does in its own way.

    Attributes:
        shape: of the id map.
        capacity: elements that a new index has room for.
        seed: of the levels.
        keeps_watermark: the id map has it.
    """

    shape: Shape
    capacity: int
    seed: int
    keeps_watermark: bool = False

    def capacity_for(self, count: int, resize_factor: float) -> int:
        """Elements that an index of ``count`` has room for."""
        if self.shape == "instance":
            grown = max(count, int(count * resize_factor))
            return self.capacity if count <= self.capacity else grown
        return self.capacity if count < self.capacity else 1 << (count - 1).bit_length()


LINES = {
    "0.4": Line("instance", 1000, 100, keeps_watermark=True),  # to 0.5.5
    "0.5": Line("instance", 1000, 100),  # since 0.5.6
    "0.6": Line("instance", 1000, 100),
    "1.0": Line("dict", 10_000, 0),
    "1.5": Line("dict", 100, 0),  # since 1.1
}

#: Chroma's own defaults, all lines.
DEFAULT_M, DEFAULT_EF_CONSTRUCTION = 16, 100
