"""One thing is wrong among many that are right: only that one has no proof.

Real Chroma writes each store, the test damages one thing in it and counts the grades. What was
called proven is compared with what Chroma itself gives after the repair.
"""

from __future__ import annotations

import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from faults import pickled
from histories import Step, Truth, adds, play, put_back, truth_of, wrongly_proven
from stores import rest, segment_folders

import hnswcheck
from hnswcheck.formats.header import parse_header

pytestmark = pytest.mark.usefixtures("chroma")
pytest.importorskip("hnswlib", reason="an index cannot be built without it")

NEW = [f"n{n}" for n in range(6)]
OTHERS: list[Step] = [
    ("update", ["r5", "r6"], ["r5-1", "r6-1"]),
    ("delete", ["r8", "r9"], ()),
    ("add", NEW, [f"{name}-0" for name in NEW]),
]


class Written(NamedTuple):
    """A store whose collection was flushed to the end: the log has but its last row."""

    store: Path
    truth: Truth

    @property
    def folder(self) -> Path:
        (folder,) = segment_folders(self.store)
        return folder


def written(store: Path, *others: Step, count: int = 60) -> Written:
    play(store, *adds(count), *others)
    truth = truth_of(count)
    for operation, ids, keys in others:
        if operation == "delete":
            truth = {id: key for id, key in truth.items() if id not in ids}
        truth |= dict(zip(ids, keys, strict=False))
    return Written(store, truth)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Written, Written, Written]:
    """Added only; updated and deleted as well; with a delete last, so that no vector is logged."""
    folder = tmp_path_factory.mktemp("played")
    update, delete, add = OTHERS
    return (
        written(folder / "added"),
        written(folder / "others", *OTHERS),
        written(folder / "deleted", update, add, delete),
    )


def copied(source: Written, folder: Path) -> Written:
    shutil.copytree(source.store, folder / "store")
    return Written(folder / "store", dict(source.truth))


@pytest.fixture(params=[0, 1], ids=["added-only", "updated-and-deleted"])
def flushed(request: pytest.FixtureRequest, played: tuple[Written, ...], tmp_path: Path) -> Written:
    return copied(played[request.param], tmp_path)


@pytest.fixture
def added_only(played: tuple[Written, ...], tmp_path: Path) -> Written:
    return copied(played[0], tmp_path)


@pytest.fixture
def updated(played: tuple[Written, ...], tmp_path: Path) -> Written:
    return copied(played[1], tmp_path)


@pytest.fixture
def deleted(played: tuple[Written, ...], tmp_path: Path) -> Written:
    return copied(played[2], tmp_path)


def grades(store: Path) -> dict[str, int]:
    (segment,) = hnswcheck.repair(rest(store), dry_run=True).segments
    return {grade: count for grade, count in segment.grades.items() if count}


def change_bytes(path: Path, at: int, new: bytes) -> None:
    data = bytearray(path.read_bytes())
    assert data[at : at + len(new)] != new
    data[at : at + len(new)] = new
    path.write_bytes(data)


def change_label(folder: Path, element: int, label: int) -> None:
    header = parse_header((folder / "header.bin").read_bytes())
    at = element * header.stride + header.label_offset
    change_bytes(folder / "data_level0.bin", at, struct.pack("<Q", label))


def change_id_map(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "index_metadata.pickle"
    state = pickle.loads(path.read_bytes())  # noqa: S301 - a real Chroma just wrote it
    change(state)
    path.write_bytes(b"\x80\x03" + pickled(state) + b".")


def relabel(state: dict[str, Any], id: str, label: int) -> None:
    del state["label_to_id"][state["id_to_label"][id]]
    state["id_to_label"][id] = label
    state["label_to_id"][label] = id


def exchange(state: dict[str, Any], one: str, two: str) -> None:
    forward = state["id_to_label"]
    forward[one], forward[two] = forward[two], forward[one]
    state["label_to_id"] |= {forward[one]: one, forward[two]: two}


def forget(state: dict[str, Any], id: str) -> None:
    del state["label_to_id"][state["id_to_label"].pop(id)]


# -- data_level0.bin


@pytest.mark.parametrize(("label", "suspects"), [(10**9, 1), (40, 2)])
def test_a_changed_label_leaves_all_the_others_proven(
    label: int, suspects: int, flushed: Written
) -> None:
    """An impossible one is that of the record without; of two elements with one, either may be."""
    change_label(flushed.folder, 20, label)
    rest_of_them = len(flushed.truth) - suspects
    assert grades(flushed.store) == {"proven": rest_of_them, "suspect": suspects}
    assert wrongly_proven(flushed.store, flushed.truth) == []


def test_a_label_that_is_gone_may_have_gone_with_its_page(
    added_only: Written,
) -> None:
    """So that others may be of older pages, which matters where there were updates."""
    change_label(added_only.folder, 20, 0)
    assert grades(added_only.store) == {"proven": 59, "suspect": 1}
    assert wrongly_proven(added_only.store, added_only.truth) == []


def test_a_label_that_is_gone_from_an_updated_index(updated: Written) -> None:
    change_label(updated.folder, 20, 0)
    assert grades(updated.store) == {"proven": 1, "suspect": len(updated.truth) - 1}


def test_what_changed_a_label_may_have_reached_the_next_vector(flushed: Written) -> None:
    """But not past its links, when these are sound."""
    header = parse_header((flushed.folder / "header.bin").read_bytes())
    level0 = flushed.folder / "data_level0.bin"
    label, next_links = 20 * header.stride + header.label_offset, 21 * header.stride
    change_bytes(level0, label, b"\xff" * 8)
    assert grades(flushed.store)["suspect"] == 1
    change_bytes(level0, next_links, b"\x40" * (header.offset_data + 4))
    assert grades(flushed.store)["suspect"] == 2
    assert wrongly_proven(flushed.store, flushed.truth) == []


@pytest.mark.parametrize("content", [b"\0", b"\xef"])
def test_where_all_were_only_added_lost_bytes_cost_what_they_hit(
    content: bytes, added_only: Written
) -> None:
    """From within one vector to within another, over the labels of elements 20 to 22."""
    header = parse_header((added_only.folder / "header.bin").read_bytes())
    begin = 20 * header.stride + header.offset_data + 8
    end = 23 * header.stride + header.offset_data + 8
    change_bytes(added_only.folder / "data_level0.bin", begin, content * (end - begin))
    assert grades(added_only.store) == {"proven": 56, "suspect": 1, "lost": 3}
    assert wrongly_proven(added_only.store, added_only.truth) == []


def test_labels_that_come_twice_more_than_once_are_of_several_writers(added_only: Written) -> None:
    change_label(added_only.folder, 40, 20)
    change_label(added_only.folder, 41, 21)
    assert grades(added_only.store) == {"proven": 1, "suspect": 57, "lost": 2}


def test_where_some_were_updated_lost_bytes_prove_nothing(updated: Written) -> None:
    """Other pages that were lost may be older ones."""
    header = parse_header((updated.folder / "header.bin").read_bytes())
    begin = 20 * header.stride + header.offset_data
    change_bytes(updated.folder / "data_level0.bin", begin, bytes(3 * header.stride))
    expected = {"proven": 1, "suspect": len(updated.truth) - 4, "lost": 3}
    assert grades(updated.store) == expected


def test_a_sector_of_zeros_within_a_large_vector_is_a_lost_one(tmp_path: Path) -> None:
    """Where a label is lost as well, so that sectors were; else a vector may have zeros."""
    store = tmp_path / "store"
    play(store, *adds(40), dimension=300)
    (folder,) = segment_folders(store)
    header = parse_header((folder / "header.bin").read_bytes())
    change_label(folder, 20, 0)
    assert grades(store) == {"proven": 39, "suspect": 1}
    sector = (10 * header.stride + header.offset_data) // 512 + 1
    change_bytes(folder / "data_level0.bin", 512 * sector, bytes(512))
    assert grades(store) == {"proven": 38, "suspect": 2}


def test_a_lost_label_is_no_label_in_the_order_of_the_records(flushed: Written) -> None:
    """As many labels as ids are left without an id map, and the last is right."""
    change_label(flushed.folder, 20, 0)
    (flushed.folder / "index_metadata.pickle").write_bytes(b"")
    assert wrongly_proven(flushed.store, flushed.truth) == []


def test_what_broke_the_links_may_have_reached_the_vector_behind_them(flushed: Written) -> None:
    """Garbage from the middle of the links on; no label is hit, and what went before is whole."""
    header = parse_header((flushed.folder / "header.bin").read_bytes())
    last = 20 * header.stride + header.offset_data
    level0 = flushed.folder / "data_level0.bin"
    change_bytes(level0, last - 20, b"\x40" * 24)
    change_bytes(level0, 20 * header.stride, b"\x20\x00")
    assert grades(flushed.store) == {"proven": len(flushed.truth) - 1, "suspect": 1}


# -- the id map


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda state: relabel(state, "r30", 10**6), id="label-nowhere"),
        pytest.param(lambda state: forget(state, "r30"), id="pair-gone"),
        pytest.param(lambda state: state["id_to_label"].pop("r30"), id="gone-from-one-map"),
        pytest.param(lambda state: state["label_to_id"].update({21: "r30"}), id="not-inverse"),
    ],
)
def test_a_pair_that_the_order_mends_costs_nothing(
    change: Callable[[dict[str, Any]], object], flushed: Written
) -> None:
    change_id_map(flushed.folder, change)
    assert grades(flushed.store) == {"proven": len(flushed.truth)}
    assert wrongly_proven(flushed.store, flushed.truth) == []


@pytest.mark.parametrize(
    ("change", "inferred"),
    [
        pytest.param(lambda state: relabel(state, "r30", 10**6), 1, id="label-nowhere"),
        pytest.param(lambda state: state["id_to_label"].pop("r30"), 0, id="gone-from-one-map"),
        pytest.param(lambda state: state["label_to_id"].pop(31), 0, id="gone-from-the-other"),
        pytest.param(lambda state: state["label_to_id"].update({21: "r30"}), 0, id="not-inverse"),
        pytest.param(lambda state: state["id_to_label"].update(r30=41, r40=31), 2, id="exchanged"),
        pytest.param(lambda state: state["id_to_label"].update(r30=41), 0, id="label-twice"),
        pytest.param(
            lambda state: state["id_to_label"].update(x=state["id_to_label"].pop("r30")),
            0,
            id="renamed-in-one-map",
        ),
        pytest.param(
            lambda state: state["label_to_id"].update({31: "x"}), 0, id="renamed-in-the-other"
        ),
    ],
)
def test_each_map_mends_the_other_where_the_log_has_no_vector(
    change: Callable[[dict[str, Any]], object], inferred: int, deleted: Written
) -> None:
    change_id_map(deleted.folder, change)
    expected = {"proven": len(deleted.truth) - inferred}
    assert grades(deleted.store) == expected | ({"inferred": inferred} if inferred else {})
    assert wrongly_proven(deleted.store, deleted.truth) == []


@pytest.mark.parametrize(("ids", "inferred"), [(("r30", "r40"), 2), (("r30", "stranger"), 1)])
def test_where_id_map_and_sqlite_disagree_on_names_either_may_be_right(
    ids: tuple[str, str], inferred: int, flushed: Written
) -> None:
    def change(state: dict[str, Any]) -> None:
        one, two = ids
        if two in state["id_to_label"]:
            exchange(state, one, two)
            forget(state, "r20")
        else:
            label = state["id_to_label"][one]
            forget(state, one)
            state["id_to_label"][two], state["label_to_id"][label] = label, two

    change_id_map(flushed.folder, change)
    certain = len(flushed.truth) - inferred
    assert grades(flushed.store) == {"proven": certain, "inferred": inferred}
    assert wrongly_proven(flushed.store, flushed.truth) == []


def test_a_record_that_took_the_label_of_another_is_no_more_certain_than_that(
    flushed: Written,
) -> None:
    def change(state: dict[str, Any]) -> None:
        label = state["id_to_label"]["r40"]
        forget(state, "r40")
        relabel(state, "r30", label)

    change_id_map(flushed.folder, change)
    assert grades(flushed.store) == {"proven": len(flushed.truth) - 2, "inferred": 2}


def test_more_exceptions_than_damage_makes_are_another_history(flushed: Written) -> None:
    def change(state: dict[str, Any]) -> None:
        exchange(state, "r30", "r40")
        exchange(state, "r31", "r41")
        forget(state, "r20")

    change_id_map(flushed.folder, change)
    expected = {"proven": 1, "suspect": len(flushed.truth) - 2, "lost": 1}
    assert grades(flushed.store) == expected


def test_an_id_map_that_is_newer_than_sqlite_proves_no_updates(
    added_only: Written, tmp_path: Path
) -> None:
    """Elements hold an update that sqlite has not, but not yet the record that was added then."""
    store, truth = flushed = added_only
    newer = tmp_path / "newer"
    shutil.copytree(store, newer)
    play(newer, *(("update", [f"r{n}"], [f"r{n}-1"]) for n in range(10)))
    level0 = (newer / flushed.folder.name / "data_level0.bin").read_bytes()
    play(newer, ("add", [*NEW, "m0", "m1", "m2", "m3"], [f"x{n}-0" for n in range(10)]))
    shutil.copy(newer / flushed.folder.name / "index_metadata.pickle", flushed.folder)
    (flushed.folder / "data_level0.bin").write_bytes(level0)
    assert grades(store) == {"proven": 1, "unconfirmed": len(truth) - 1}


def test_an_order_that_is_right_proves_no_updates_of_lost_pages(
    added_only: Written, tmp_path: Path
) -> None:
    """The id map and the first elements are of the flush before, all else of the last one."""
    store, truth = here = added_only
    older = tmp_path / "older"
    shutil.copytree(here.folder, older)
    updates: list[Step] = [("update", [f"r{n}"], [f"r{n}-1"]) for n in range(10)]
    play(store, *updates, ("add", [f"s{n}" for n in range(10)], [f"s{n}-0" for n in range(10)]))
    header = parse_header((here.folder / "header.bin").read_bytes())
    old = (older / "data_level0.bin").read_bytes()[: 60 * header.stride]
    new = (here.folder / "data_level0.bin").read_bytes()
    (here.folder / "data_level0.bin").write_bytes(old + new[len(old) :])
    shutil.copy(older / "index_metadata.pickle", here.folder)
    truth |= {f"r{n}": f"r{n}-1" for n in range(10)} | {f"s{n}": f"s{n}-0" for n in range(10)}
    assert grades(store)["proven"] == 1
    assert wrongly_proven(store, truth) == []


def test_an_index_that_is_newer_than_sqlite_proves_no_updates(
    added_only: Written, tmp_path: Path
) -> None:
    """The id map is gone. For all that sqlite knows, records were only ever added."""
    store, truth = here = added_only
    newer = tmp_path / "newer"
    shutil.copytree(store, newer)
    names = [f"s{n}" for n in range(10)]
    updates: list[Step] = [("update", [f"r{n}"], [f"r{n}-1"]) for n in range(10)]
    play(newer, *updates, ("add", names, [f"{name}-0" for name in names]))
    put_back(here.folder, newer / here.folder.name)
    (here.folder / "index_metadata.pickle").unlink()
    assert grades(store)["proven"] == 1
    assert wrongly_proven(store, truth) == []


# -- whose the elements are


def test_elements_of_another_collection_are_not_this_ones(
    added_only: Written, tmp_path: Path
) -> None:
    """All files but the id map, and fewer elements than that has labels."""
    store, truth = here = added_only
    other = tmp_path / "other"
    play(other, *[("add", [f"r{n}"], [f"other{n}"]) for n in range(40)])
    (folder,) = segment_folders(other)
    for name in ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin"):
        shutil.copy(folder / name, here.folder)
    assert grades(store) == {"proven": 1, "unconfirmed": 40, "lost": 19}
    assert wrongly_proven(store, truth) == []


def test_an_older_index_under_a_newer_id_map_is_known_by_what_the_log_has(tmp_path: Path) -> None:
    """As a copy made file by file leaves; it has the vector that the log kept of the last flush."""
    store, truth = here = written(tmp_path / "store", count=40)
    older = tmp_path / "older"
    shutil.copytree(here.folder, older)
    names = [f"s{n}" for n in range(10)]
    play(store, ("add", names[:5], [f"{name}-0" for name in names[:5]]))
    play(store, ("add", names[5:], [f"{name}-0" for name in names[5:]]))
    shutil.copy(here.folder / "index_metadata.pickle", older)
    put_back(here.folder, older)
    truth |= {name: f"{name}-0" for name in names}
    assert grades(store) == {"proven": 1, "unconfirmed": 40, "lost": 9}
    assert wrongly_proven(store, truth) == []
