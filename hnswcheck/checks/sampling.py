"""How many examples a finding names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hnswcheck.formats.strings import Strings
from hnswcheck.formats.text import text

SAMPLE = 20


@dataclass(frozen=True, slots=True)
class Sampler:
    """Picks examples: the first 20 in byte order, or all of them."""

    everything: bool = False

    def bytes(self, ids: Iterable[bytes]) -> list[str]:
        """Record ids as text."""
        ordered = sorted(ids)
        return [text(i) for i in (ordered if self.everything else ordered[:SAMPLE])]

    def strings(self, ids: Strings) -> list[str]:
        """Record ids from a column."""
        return self.bytes(ids)

    def places(self, places: Iterable[str]) -> list[str]:
        """Places in the index, in their order."""
        if self.everything:
            return list(places)
        return [place for place, _ in zip(places, range(SAMPLE), strict=False)]
