"""header.bin: the shape of one HNSW index.

Source of the layout: ``HEADER_FIELDS`` and ``persistHeader`` in chroma-core/hnswlib,
``hnswlib/hnswalg.h``. Little-endian on every platform that Chroma ships for.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from hnswcheck.errors import FormatError

FIELDS = (
    ("persistence_version", "i"),
    ("offset_level0", "Q"),
    ("max_elements", "Q"),
    ("cur_element_count", "Q"),
    ("size_data_per_element", "Q"),
    ("label_offset", "Q"),
    ("offset_data", "Q"),
    ("maxlevel", "i"),
    ("enterpoint_node", "I"),
    ("max_m", "Q"),
    ("max_m0", "Q"),
    ("m", "Q"),
    ("mult", "d"),
    ("ef_construction", "Q"),
)
LAYOUT = struct.Struct("<" + "".join(code for _, code in FIELDS))
PERSISTENCE_VERSION = 1
NO_ENTRY_POINT = 0xFFFFFFFF

#: ``int(-ln(U) / ln(M))`` with U from a 53-bit uniform draw cannot pass this, even for M = 2.
HIGHEST_LEVEL = 64
#: An element larger than this is no vector anybody embeds; it would only size a buffer.
LARGEST_ELEMENT = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The fields of header.bin, under their names in hnswlib (``max_m`` is ``maxM_``)."""

    persistence_version: int
    offset_level0: int
    max_elements: int
    cur_element_count: int
    size_data_per_element: int
    label_offset: int
    offset_data: int
    maxlevel: int
    enterpoint_node: int
    max_m: int
    max_m0: int
    m: int
    mult: float
    ef_construction: int

    @property
    def count(self) -> int:
        """Elements in the index, tombstones included."""
        return self.cur_element_count

    @property
    def capacity(self) -> int:
        """Elements that fit before the index has to grow."""
        return self.max_elements

    @property
    def stride(self) -> int:
        """Bytes per element in data_level0.bin."""
        return self.size_data_per_element

    @property
    def dimension(self) -> int:
        """float32 values per vector, from the offsets."""
        return (self.label_offset - self.offset_data) // 4

    @property
    def link_list_bytes(self) -> int:
        """Bytes of one upper-level link list: a u32 degree and ``max_m`` u32 neighbours."""
        return 4 + 4 * self.max_m

    def contradictions(self) -> list[str]:
        """What in the fields cannot be true of any index, in words; empty for a sound header.

        The rules are the constructor of ``HierarchicalNSW``: every offset follows from ``M`` and
        the dimension. The element count is judged against the files, not here.
        """
        wrong: list[str] = []

        def expect(field: str, found: object, expected: object) -> None:
            if found != expected:
                wrong.append(f"{field} is {found}, expected {expected}")

        expect("persistence version", self.persistence_version, PERSISTENCE_VERSION)
        expect("offsetLevel0", self.offset_level0, 0)
        expect("maxM", self.max_m, self.m)
        expect("maxM0", self.max_m0, 2 * self.m)
        expect("offsetData", self.offset_data, 4 + 4 * self.max_m0)
        expect("size_data_per_element", self.stride, self.label_offset + 8)
        vector_bytes = self.label_offset - self.offset_data
        if vector_bytes <= 0 or vector_bytes % 4:
            wrong.append(
                f"vectors of {vector_bytes} bytes are not a whole number of float32 values"
            )
        if self.stride > LARGEST_ELEMENT:
            wrong.append(f"size_data_per_element is {self.stride}")
        if not 1 <= self.m <= 0xFFFF // 2:
            wrong.append(f"M is {self.m}")
        elif self.m > 1 and not math.isclose(self.mult, 1 / math.log(self.m), rel_tol=1e-12):
            wrong.append(f"mult is {self.mult}, expected 1/ln({self.m})")
        if self.ef_construction < self.m:
            wrong.append(f"ef_construction is {self.ef_construction}, below M")
        return wrong


def shaped(dimension: int, m: int, ef_construction: int, count: int) -> Header:
    """The header of an index of this shape, as far as reading its elements needs one."""
    offset_data = 4 + 4 * (2 * m)
    label_offset = offset_data + 4 * dimension
    return Header(
        persistence_version=PERSISTENCE_VERSION,
        offset_level0=0,
        max_elements=count,
        cur_element_count=count,
        size_data_per_element=label_offset + 8,
        label_offset=label_offset,
        offset_data=offset_data,
        maxlevel=-1,
        enterpoint_node=NO_ENTRY_POINT,
        max_m=m,
        max_m0=2 * m,
        m=m,
        mult=1 / math.log(m) if m > 1 else math.inf,
        ef_construction=ef_construction,
    )


def parse_header(data: bytes) -> Header:
    """Read the fields of header.bin.

    Raises:
        FormatError: ``data`` is shorter than the 100 bytes of a header.
    """
    if len(data) < LAYOUT.size:
        raise FormatError(f"header.bin has {len(data)} of {LAYOUT.size} bytes")
    values = LAYOUT.unpack_from(data)
    return Header(**dict(zip((name for name, _ in FIELDS), values, strict=True)))


def pack_header(header: Header) -> bytes:
    """The 100 bytes of header.bin."""
    return LAYOUT.pack(*(getattr(header, name) for name, _ in FIELDS))
