"""data_level0.bin: elements in chunks, and vectors one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hnswcheck.errors import FormatError
from hnswcheck.formats import level0
from hnswcheck.formats.header import Header, shaped
from hnswcheck.formats.level0 import TOMBSTONE, Elements, element_dtype, read_elements, read_vectors

COUNT = 7


@pytest.fixture
def header() -> Header:
    return shaped(dimension=3, m=2, ef_construction=10, count=COUNT)


@pytest.fixture
def written(header: Header) -> NDArray[np.void]:
    elements = np.zeros(COUNT, element_dtype(header))
    elements["label"] = np.arange(1, COUNT + 1)
    elements["vector"] = np.arange(3 * COUNT).reshape(-1, 3)
    elements["degree"] = np.arange(COUNT)
    elements["flags"][2] = TOMBSTONE
    return elements


@pytest.fixture
def path(written: NDArray[np.void], tmp_path: Path) -> Path:
    file = tmp_path / "data_level0.bin"
    file.write_bytes(written.tobytes())
    return file


def test_an_element_is_as_long_as_the_header_says(header: Header) -> None:
    dtype = element_dtype(header)
    assert dtype.itemsize == header.stride == 4 + 4 * 4 + 3 * 4 + 8
    assert {name: dtype.fields[name][1] for name in dtype.names or ()} == {  # type: ignore[index]
        "degree": 0,
        "flags": 2,
        "neighbours": 4,
        "vector": header.offset_data,
        "label": header.label_offset,
    }


@pytest.mark.parametrize("elements_at_once", [1, 2, 3, COUNT, COUNT + 1])
def test_the_size_of_a_chunk_changes_nothing(
    elements_at_once: int,
    header: Header,
    written: NDArray[np.void],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(level0, "CHUNK_BYTES", elements_at_once * header.stride)
    chunks = [(c.first, c.elements.tobytes()) for c in read_elements(path, header, COUNT)]
    assert [first for first, _ in chunks] == list(range(0, COUNT, elements_at_once))
    assert b"".join(part for _, part in chunks) == written.tobytes()


def test_an_element_larger_than_a_chunk_is_read_alone(
    header: Header, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(level0, "CHUNK_BYTES", header.stride - 1)
    assert [len(c.elements) for c in read_elements(path, header, COUNT)] == [1] * COUNT


def test_elements_may_begin_behind_a_header(
    header: Header, written: NDArray[np.void], tmp_path: Path
) -> None:
    file = tmp_path / "saved"
    file.write_bytes(b"x" * 96 + written.tobytes())
    (chunk,) = read_elements(file, header, COUNT, start=96)
    assert chunk.elements["label"].tolist() == list(range(1, COUNT + 1))


def test_a_file_that_is_a_byte_short_is_refused_and_an_exact_one_is_read(
    header: Header, path: Path
) -> None:
    assert sum(len(c.elements) for c in read_elements(path, header, COUNT)) == COUNT
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match=f"ends within element {COUNT - 1}"):
        list(read_elements(path, header, COUNT))
    (chunk,) = read_elements(path, header, COUNT - 1)
    assert len(chunk.elements) == COUNT - 1


def test_no_elements_are_read_from_an_empty_file(header: Header, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert list(read_elements(empty, header, 0)) == []


def test_vectors_come_in_the_order_asked_for(header: Header, path: Path) -> None:
    vectors = read_vectors(path, header, np.array([5, 0, 5]))
    assert vectors.tolist() == [[15, 16, 17], [0, 1, 2], [15, 16, 17]]
    assert vectors.dtype == np.float32


def test_a_vector_past_the_end_is_refused(header: Header, path: Path) -> None:
    with pytest.raises(FormatError, match=f"element {COUNT}"):
        read_vectors(path, header, np.array([COUNT]))


def test_live_elements_are_those_without_a_tombstone() -> None:
    elements = Elements(np.arange(3, dtype=np.uint64), np.array([False, True, False]))
    assert (elements.live, elements.tombstones) == (2, 1)
