"""index_metadata.pickle is read without unpickling: what Python would see, and where it stops."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stores import segment_folders, unpack

from hnswcheck.formats.id_map import LARGEST_LABEL, PERSISTENT_DATA, decode_id_map
from hnswcheck.formats.pickle_tokens import Damage

WHOLE = {
    "dimensionality": None,
    "total_elements_added": 2,
    "max_seq_id": None,
    "id_to_label": {"a": 1, "b": 2},
    "label_to_id": {1: "a", 2: "b"},
    "id_to_seq_id": {},
}


class Loader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        assert (module.encode(), name.encode()) == PERSISTENT_DATA
        return SimpleNamespace


def plain(**changes: Any) -> bytes:
    """A dict with memo, as Python pickles it; None removes nothing, Ellipsis removes a field."""
    changed = {**WHOLE, **changes}
    return pickle.dumps({k: v for k, v in changed.items() if v is not ...}, protocol=4)


@pytest.mark.parametrize("version", ["0.4.24", "0.5.23", "0.6.3", "1.0.20", "1.5.9"])
@pytest.mark.parametrize("store", ["churn-l2", "hostile-ids"])
def test_every_release_wrote_what_pickle_reads(version: str, store: str, tmp_path: Path) -> None:
    (folder, *_) = segment_folders(unpack(f"{version}-{store}", tmp_path))
    data = (folder / "index_metadata.pickle").read_bytes()
    loaded = Loader(io.BytesIO(data)).load()
    expected = loaded if isinstance(loaded, dict) else vars(loaded)
    found = decode_id_map(data)
    assert found.problem is None
    assert found.ids_whole
    forward = zip(found.id_to_label.ids, found.id_to_label.labels.tolist(), strict=True)
    assert {id.decode(): label for id, label in forward} == expected["id_to_label"]
    backward = zip(found.label_to_id.labels.tolist(), found.label_to_id.ids, strict=True)
    assert {label: id.decode() for label, id in backward} == expected["label_to_id"]
    assert found.total_elements_added == expected["total_elements_added"]


def test_a_whole_map_has_no_problem() -> None:
    found = decode_id_map(plain())
    assert found.problem is None
    assert list(found.id_to_label.ids) == [b"a", b"b"]
    assert found.id_to_label.labels.tolist() == [1, 2]


@pytest.mark.parametrize("field", ["id_to_label", "label_to_id", "id_to_seq_id"])
def test_a_map_without_one_of_its_maps_is_invalid(field: str) -> None:
    problem = decode_id_map(plain(**{field: ...})).problem
    assert problem is not None
    assert problem.damage is Damage.INVALID
    assert field in problem.text


@pytest.mark.parametrize(
    "changes",
    [
        {"total_elements_added": None},
        {"total_elements_added": -1},
        {"dimensionality": ...},
        {"dimensionality": -3},
        {"max_seq_id": {}},
        {"id_to_label": {"a": "b"}},
        {"id_to_label": {"a": -1}},
        {"id_to_label": {"a": LARGEST_LABEL + 1}},
        {"label_to_id": {"a": 1}},
    ],
)
def test_a_field_of_another_kind_is_invalid(changes: dict[str, Any]) -> None:
    problem = decode_id_map(plain(**changes)).problem
    assert problem is not None
    assert problem.damage is Damage.INVALID


@pytest.mark.parametrize("changes", [{"dimensionality": 12}, {"max_seq_id": 0}])
def test_a_number_where_1_x_writes_none_is_no_fault(changes: dict[str, Any]) -> None:
    assert decode_id_map(plain(**changes)).problem is None


def test_the_largest_label_is_no_fault() -> None:
    found = decode_id_map(plain(id_to_label={"a": LARGEST_LABEL}))
    assert found.problem is None
    assert found.id_to_label.labels.tolist() == [LARGEST_LABEL]


def test_another_class_is_unsafe() -> None:
    problem = decode_id_map(pickle.dumps(Path("x"), protocol=4)).problem
    assert problem is not None
    assert problem.damage is not Damage.TRUNCATED


@pytest.mark.parametrize("data", [b"", b"\x80\x03", b"\x80\x04}"])
def test_nothing_and_a_head_alone_are_truncated(data: bytes) -> None:
    problem = decode_id_map(data).problem
    assert problem is not None
    assert problem.damage is Damage.TRUNCATED


def test_what_comes_before_a_cut_is_kept() -> None:
    data = plain()
    at = data.index(b"id_to_seq_id")
    found = decode_id_map(data[:at])
    assert found.problem is not None
    assert found.problem.damage is Damage.TRUNCATED
    assert found.ids_whole
    assert list(found.label_to_id.ids) == [b"a", b"b"]
