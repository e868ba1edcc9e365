"""The folder of one vector segment: what is in it, and its parts read within bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hnswcheck.errors import FormatError, StoreChanged
from hnswcheck.formats.header import LAYOUT, Header, parse_header
from hnswcheck.formats.id_map import HEAD_BYTES, IdMap, Shape, decode_id_map
from hnswcheck.formats.level0 import TOMBSTONE, Chunk, Elements, read_elements
from hnswcheck.formats.link_lists import LinkLists, read_link_lists
from hnswcheck.formats.pickle_tokens import Damage, Problem
from hnswcheck.formats.segment_files import (
    HEADER,
    ID_MAP,
    INDEX_FILES,
    LENGTH,
    LEVEL0,
    LINKS,
    NORM_BYTES,
)
from hnswcheck.store.catalog import Collection
from hnswcheck.store.files import FileState, follow, list_directory, look_at, unreadable
from hnswcheck.store.names import UUID

#: Larger than any id map of so many elements; the size of a sparse file says nothing.
ID_MAP_BYTES_FIXED, ID_MAP_BYTES_PER_ELEMENT, ID_MAP_COMPRESSED = 64 << 20, 16 << 10, 4

Advance = Callable[[int], None]

Visit = Callable[[Chunk], None]


def _ignore(_: object) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFolder:
    """What lies in a segment folder; header.bin is read.

    Attributes:
        exists: the folder is there.
        states: by name, the files that Chroma keeps there; empty where the folder is not.
        header: None where header.bin is missing, short or contradicts itself.
        contradictions: how header.bin contradicts itself.
        links: paths of symlinks on the way, from the persist directory on. They are followed.
    """

    path: Path
    exists: bool
    states: Mapping[str, FileState]
    header: Header | None
    contradictions: tuple[str, ...] = ()
    links: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Elements by the header; 0 where there is none."""
        return self.header.count if self.header else 0

    @property
    def held(self) -> int:
        """Elements that data_level0.bin has the bytes for, at most ``count``."""
        if self.header is None or LEVEL0 not in self.states:
            return 0
        return min(self.count, self.states[LEVEL0].size // self.header.stride)

    @property
    def level0_whole(self) -> bool:
        """Every element that the header counts can be read."""
        return self.header is not None and LEVEL0 in self.states and self.held == self.count

    @property
    def irregular(self) -> list[str]:
        """Files that are no regular ones, nor lead to one; nothing of the folder is then read."""
        return [state.name for state in self.states.values() if not state.is_file]

    @property
    def bytes_to_read(self) -> int:
        """Bytes that reading all parts takes, for progress."""
        sizes = (self.states[n].size for n in (LINKS, ID_MAP) if n in self.states)
        return sum(sizes) + (self.held * self.header.stride if self.header else 0)

    def read_id_map(self, advance: Advance = _ignore) -> IdMap | None:
        """The id map, None where there is no file.

        Raises:
            StoreUnreadable: the operating system will not let us.
        """
        state = self.states.get(ID_MAP)
        if state is None:
            return None
        of_elements = ID_MAP_BYTES_FIXED + ID_MAP_BYTES_PER_ELEMENT * self.count
        # The count may be wrong.
        limit = max(of_elements, state.solid_size(ID_MAP_BYTES_FIXED, ID_MAP_COMPRESSED))
        id_map = decode_id_map(_read(self.path / ID_MAP, min(state.size, limit)))
        advance(state.size)
        if state.size > limit:
            text = f"{state.size} bytes for {self.count} elements"
            unsafe = Problem(Damage.UNSAFE, limit, text)
            return replace(id_map, ids_whole=False, problem=unsafe)
        return id_map

    def read_elements(self, visit: Visit = _ignore, advance: Advance = _ignore) -> Elements | None:
        """Labels and delete marks of the elements that are there; None without a header.

        Args:
            visit: shown every chunk of elements on the way.

        Raises:
            StoreChanged: data_level0.bin became shorter meanwhile.
            StoreUnreadable: the operating system will not let us.
        """
        if self.header is None or LEVEL0 not in self.states:
            return None
        labels, flags = np.empty(self.held, np.uint64), np.empty(self.held, np.uint8)
        path = self.path / LEVEL0
        try:
            for chunk in read_elements(path, self.header, self.held):
                after = chunk.first + len(chunk.elements)
                labels[chunk.first : after] = chunk.elements["label"]
                flags[chunk.first : after] = chunk.elements["flags"]
                visit(chunk)
                advance(chunk.elements.nbytes)
        except FormatError as error:
            raise StoreChanged(str(error)) from error
        except OSError as error:
            raise unreadable(path, error) from error
        return Elements(labels, flags & TOMBSTONE != 0)

    def read_norms(self) -> tuple[NDArray[np.float32], int]:
        """float32 (held,): length.bin, and so many of it are there; what it lacks counts as 1.

        Raises:
            OSError: the operating system will not let us.
        """
        norms, known = np.ones(self.held, np.float32), 0
        if LENGTH in self.states:
            known = min(self.held, self.states[LENGTH].size // NORM_BYTES)
            norms[:known] = np.fromfile(self.path / LENGTH, "<f4", known)
        return norms, known

    def read_links(self, advance: Advance = _ignore) -> LinkLists | None:
        """The links above level 0; None where they cannot be sized or are not there.

        Raises:
            StoreUnreadable: the operating system will not let us.
        """
        if self.header is None or LINKS not in self.states or not self.level0_whole:
            return None
        path = self.path / LINKS
        try:
            links = read_link_lists(path, self.header)
        except OSError as error:
            raise unreadable(path, error) from error
        advance(links.used_bytes)
        return links


def open_segment(path: Path) -> SegmentFolder:
    """Look at a segment folder; reads only header.bin.

    Raises:
        StoreUnreadable: the operating system will not let us.
    """
    states = {state.name: _followed(path, state) for state in _files_in(path)}
    folder = SegmentFolder(
        path=path, exists=path.is_dir(), states=states, header=None, links=links_in(path)
    )
    if HEADER not in states or folder.irregular:
        return folder
    try:
        header = parse_header(_read(path / HEADER, LAYOUT.size))
    except FormatError:
        return folder
    contradictions = tuple(header.contradictions())
    return replace(folder, header=None if contradictions else header, contradictions=contradictions)


def _followed(folder: Path, state: FileState) -> FileState:
    """What a file is; a symlink that leads nowhere is itself."""
    return (follow(folder / state.name) or state) if state.is_symlink else state


def _files_in(folder: Path) -> list[FileState]:
    """What Chroma keeps in it, symlinks as such."""
    return [state for state in list_directory(folder) if state.name in (*INDEX_FILES, ID_MAP)]


def links_in(path: Path) -> tuple[str, ...]:
    """The symlinks that a segment folder is or has in Chroma's files, as reports name them.

    Raises:
        StoreUnreadable: the operating system will not let us.
    """
    state = look_at(path)
    own = [path.name] if state is not None and state.is_symlink else []
    return (*own, *(f"{path.name}/{each.name}" for each in _files_in(path) if each.is_symlink))


class Peek(NamedTuple):
    """What the first bytes of an id map tell.

    Attributes:
        exists: there is an id map.
        present: there is, and not one that is empty.
        max_seq_id: the watermark that 0.4 keeps in it.
        total_elements_added: the label counter.
        checkpoint: :attr:`IdMap.checkpoint`.
        shape: which lines write such an id map.
    """

    exists: bool = False
    present: bool = False
    max_seq_id: int | None = None
    total_elements_added: int | None = None
    shape: Shape | None = None
    checkpoint: int | None = None


def peek_id_map(folder: Path) -> Peek:
    """Read the head of a segment's id map.

    Raises:
        StoreUnreadable: the operating system will not let us.
    """
    path = folder / ID_MAP
    state = None if _leads_astray(folder) else follow(path)
    if state is None or not state.is_file:
        return Peek()
    id_map = decode_id_map(_read(path, HEAD_BYTES))
    empty = id_map.problem is None and not len(id_map.id_to_label.ids)
    total = id_map.total_elements_added
    return Peek(True, not empty, id_map.max_seq_id, total, id_map.shape, id_map.checkpoint)


def _read(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError as error:
        raise StoreChanged(f"{path.name} vanished while it was read") from error
    except OSError as error:
        raise unreadable(path, error) from error


def segment_folder(root: Path, collection: Collection) -> Path | None:
    """The folder of the vector segment; None where that could lead out of the directory."""
    if collection.vector is None or why_unsafe(root, collection.vector.id):
        return None
    return root / collection.vector.id


def why_unsafe(root: Path, segment: str) -> tuple[str, str] | None:
    """What a segment's folder should be, and what it is; None where nothing is wrong.

    A symlink to a folder is one: Chroma follows it.
    """
    if not UUID.fullmatch(segment):
        return "a uuid", segment
    found = _leads_astray(root / segment)
    return ("a folder", found) if found else None


def _leads_astray(path: Path) -> str:
    """What is in the place of a folder; empty for a folder, or where there is nothing.

    Raises:
        StoreUnreadable: the operating system will not say.
    """
    state = look_at(path)
    if state is None or state.is_directory:
        return ""
    if not state.is_symlink:
        return "not a folder"
    target = follow(path)
    if target is None:
        return "a symlink that leads nowhere"
    return "" if target.is_directory else "a symlink to what is not a folder"
