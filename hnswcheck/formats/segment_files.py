"""The files of a segment folder."""

from __future__ import annotations

HEADER, LEVEL0, LENGTH, LINKS = "header.bin", "data_level0.bin", "length.bin", "link_lists.bin"

INDEX_FILES = (HEADER, LEVEL0, LENGTH, LINKS)

ID_MAP = "index_metadata.pickle"

#: Bytes of each element's norm in length.bin, and of an empty record in link_lists.bin.
NORM_BYTES = 4
