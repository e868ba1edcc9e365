"""index_metadata.pickle as both writers of Chroma make it, with Python's pickle as the judge."""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stores import segment_folders, unpack

from hnswcheck.formats.id_map import PERSISTENT_DATA, decode_id_map
from hnswcheck.formats.id_map_writer import BATCH, write_dict, write_instance
from hnswcheck.formats.strings import Strings

#: Around a batch, and past what one byte of a memo counts.
COUNTS = (0, 1, 2, 300, BATCH - 1, BATCH, BATCH + 1)


class Loader(pickle.Unpickler):
    """Knows one class: what stands for Chroma's."""

    def find_class(self, module: str, name: str) -> Any:
        assert (module.encode(), name.encode()) == PERSISTENT_DATA
        return SimpleNamespace


def ids_of(count: int) -> list[str]:
    odd = ["", "ü" * 200, "x" * 255, "x" * 256, "日本"]
    return [odd[i] if i < len(odd) else f"r{i}" for i in range(count)]


def as_dict(count: int) -> bytes:
    file = io.BytesIO()
    ids = Strings.of(id.encode() for id in ids_of(count))
    write_dict(file, ids, np.arange(1, count + 1, dtype=np.uint64), count)
    return file.getvalue()


def as_instance(count: int, watermark: int | None) -> bytes:
    file = io.BytesIO()
    ids = Strings.of(id.encode() for id in ids_of(count))
    labels = np.arange(1, count + 1, dtype=np.uint64)
    seq_ids = np.arange(count) + (1 << 31) - 2  # around what four bytes hold
    write_instance(file, ids, labels, count, 12, seq_ids, watermark)
    return file.getvalue()


def expected_maps(count: int) -> tuple[dict[str, int], dict[int, str]]:
    forward = {id: label for label, id in enumerate(ids_of(count), 1)}
    return forward, {label: id for id, label in forward.items()}


@pytest.mark.parametrize("count", COUNTS)
def test_pickle_loads_the_dict_of_1_x(count: int) -> None:
    forward, backward = expected_maps(count)
    assert pickle.loads(as_dict(count)) == {  # noqa: S301 - written here
        "dimensionality": None,
        "total_elements_added": count,
        "max_seq_id": None,
        "id_to_label": forward,
        "label_to_id": backward,
        "id_to_seq_id": {},
    }


@pytest.mark.parametrize("watermark", [None, 0, 1 << 40])
@pytest.mark.parametrize("count", COUNTS[1:])
def test_pickle_loads_the_instance_of_0_x(count: int, watermark: int | None) -> None:
    loaded = vars(Loader(io.BytesIO(as_instance(count, watermark))).load())
    forward, backward = expected_maps(count)
    assert loaded.pop("max_seq_id", None) == watermark
    assert loaded == {
        "dimensionality": 12,
        "total_elements_added": count,
        "id_to_label": forward,
        "label_to_id": backward,
        "id_to_seq_id": {id: (1 << 31) - 2 + i for i, id in enumerate(ids_of(count))},
    }


@pytest.mark.parametrize("count", COUNTS)
def test_what_is_written_is_read_back_as_the_dict_of_1_x(count: int) -> None:
    found = decode_id_map(as_dict(count))
    assert (found.problem, found.shape, found.total_elements_added) == (None, "dict", count)
    assert [id.decode() for id in found.id_to_label.ids] == ids_of(count)
    assert found.label_to_id.labels.tolist() == list(range(1, count + 1))


@pytest.mark.parametrize("count", COUNTS[1:])
def test_what_is_written_is_read_back_as_the_instance_of_0_x(count: int) -> None:
    found = decode_id_map(as_instance(count, 77))
    assert (found.problem, found.shape, found.max_seq_id) == (None, "instance", 77)
    assert found.dimensionality == 12
    assert [id.decode() for id in found.label_to_id.ids] == ids_of(count)


def opcodes(data: bytes) -> list[tuple[str, object]]:
    return [(op.name, argument) for op, argument, _ in pickletools.genops(data)]


@pytest.mark.parametrize("name", ["1.5.9-churn-l2", "1.0.20-hostile-ids"])
def test_an_id_map_of_1_x_is_written_again_with_the_opcodes_of_chroma(
    name: str, tmp_path: Path
) -> None:
    """The order within a map is the hash map's; the second map is compared without it."""
    (folder,) = segment_folders(unpack(name, tmp_path))
    data = (folder / "index_metadata.pickle").read_bytes()
    found = decode_id_map(data)
    assert found.total_elements_added is not None
    file = io.BytesIO()
    labels = found.id_to_label.labels.astype(np.uint64)
    write_dict(file, found.id_to_label.ids, labels, found.total_elements_added)
    theirs, ours = opcodes(data), opcodes(file.getvalue())
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    half = ours.index(("BINUNICODE", "label_to_id"))
    assert ours[:half] == theirs[:half]
    assert len(file.getvalue()) == len(data)


def written_again(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """An id map of 0.x from what was read of it, and what pickle says it holds."""
    found = decode_id_map(data)
    state = vars(Loader(io.BytesIO(data)).load())
    file = io.BytesIO()
    write_instance(
        file,
        found.id_to_label.ids,
        found.id_to_label.labels.astype(np.uint64),
        state["total_elements_added"],
        state["dimensionality"],
        np.array([state["id_to_seq_id"][id] for id in state["id_to_label"]]),
        state.get("max_seq_id"),
    )
    return file.getvalue(), state


@pytest.mark.parametrize("name", ["0.6.3-many-levels", "0.5.23-exactly-a-thousand"])
def test_an_id_map_of_0_x_is_written_again_byte_for_byte(name: str, tmp_path: Path) -> None:
    (folder,) = segment_folders(unpack(name, tmp_path))
    data = (folder / "index_metadata.pickle").read_bytes()
    assert written_again(data)[0] == data


def test_an_id_map_whose_maps_differ_in_order_is_written_again_with_the_same_content(
    tmp_path: Path,
) -> None:
    """After deletions and updates 0.x keeps the seq_ids in an order of their own."""
    (folder,) = segment_folders(unpack("0.4.24-churn-cosine", tmp_path))
    again, state = written_again((folder / "index_metadata.pickle").read_bytes())
    assert vars(Loader(io.BytesIO(again)).load()) == state
