"""Histories that look like others: what is called proven is the record's own all the same.

Real Chroma plays each history; the test knows every vector. What is compared in the end is what
Chroma itself gives for the records that were called proven, after the repair.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from histories import Step, adds, edit, keep_log, play, put_back, truth_of, wrongly_proven
from stores import rest, segment_folders

import hnswcheck

pytestmark = pytest.mark.usefixtures("chroma")
pytest.importorskip("hnswlib", reason="an index cannot be built without it")


def test_a_record_that_was_made_again_tells_nothing_of_a_folders_age(tmp_path: Path) -> None:
    """The older folder has r99, too, from its first life; updates since are purged."""
    store = tmp_path / "store"
    play(store, *adds(100))
    (folder,) = segment_folders(store)
    shutil.copytree(folder, tmp_path / "older")
    updated = [f"r{n}" for n in range(20, 40)]
    play(
        store,
        ("update", ["r5"], ["r5-1"]),
        ("delete", ["r8"], ()),
        *(("update", [id], [f"{id}-1"]) for id in updated),
    )
    play(store, ("delete", ["r99"], ()), ("add", ["r99"], ["r99-1"]), ("add", ["new"], ["new-0"]))
    put_back(folder, tmp_path / "older")
    changes = {id: f"{id}-1" for id in ("r5", "r99", *updated)}
    assert wrongly_proven(store, truth_of(100, new="new-0", **changes)) == []


def test_an_add_that_waits_is_not_ignored_for_an_element_that_is_left(tmp_path: Path) -> None:
    """Ids of the older folder were deleted, which is purged, and added again, which is pending."""
    store = tmp_path / "store"
    play(store, *adds(100))
    (folder,) = segment_folders(store)
    shutil.copytree(folder, tmp_path / "older")
    play(store, ("delete", [f"r{n}" for n in range(90, 100)], ()))
    new = ("add", ["r91", "r95", "n0"], ["r91-1", "r95-1", "n0-0"])
    play(store, new)
    put_back(folder, tmp_path / "older")
    truth = truth_of(90, r91="r91-1", r95="r95-1", n0="n0-0")
    assert wrongly_proven(store, truth) == []


def test_an_update_before_the_add_is_not_replayed_into_the_record(tmp_path: Path) -> None:
    """In a store that keeps its log, whose watermark is ahead."""
    store = tmp_path / "store"
    play(store, ("add", ["zero"], ["zero-0"]))
    keep_log(store)
    early: list[Step] = [("update", ["x"], ["x-early"]), ("add", ["x"], ["x-0"])]
    play(store, *early, *adds(100))
    (folder,) = segment_folders(store)
    edit(store, "UPDATE max_seq_id SET seq_id = seq_id + 1000 WHERE segment_id = ?", folder.name)
    assert wrongly_proven(store, truth_of(100, x="x-0", zero="zero-0")) == []


def test_numbers_that_were_given_again_prove_nothing(tmp_path: Path) -> None:
    """The log was emptied and both watermarks set back, so that Chroma numbers from 1 again."""
    store = tmp_path / "store"
    play(store, *adds(100), ("add", ["z"], ["z-0"]))
    play(store, *(("update", [f"r{n}"], [f"r{n}-1"]) for n in range(50, 60)))
    edit(store, "DELETE FROM embeddings_queue")
    edit(store, "UPDATE max_seq_id SET seq_id = 0")
    again: list[Step] = [("add", ["r5"], ["r5-ignored"]), ("update", ["r7"], ["r7-1"])]
    play(store, *again, ("add", ["n1"], ["n1-0"]))
    for links in store.glob("*/link_lists.bin"):
        links.write_bytes(b"\x05" + links.read_bytes()[1:])
    updated = {f"r{n}": f"r{n}-1" for n in (7, *range(50, 60))}
    assert wrongly_proven(store, truth_of(100, z="z-0", n1="n1-0", **updated)) == []


def test_a_row_that_cannot_be_read_hides_no_skew(tmp_path: Path) -> None:
    """X, which the older folder lacks, has a pending row of which nobody knows what it does."""
    store = tmp_path / "store"
    play(store, *adds(20))
    (folder,) = segment_folders(store)
    shutil.copytree(folder, tmp_path / "older")
    play(store, ("add", ["X"], ["X-0"]), ("update", ["r3"], ["r3-1"]))
    play(store, *(("update", ["X"], [f"X-{n}"]) for n in range(1, 10)))
    put_back(folder, tmp_path / "older")
    edit(store, "UPDATE embeddings_queue SET operation = 7 WHERE seq_id = 31")
    assert wrongly_proven(store, truth_of(20, r3="r3-1", X="X-9")) == []


@pytest.mark.parametrize("change", ["encoding = 'X'", "operation = 7", "vector = x'00'"])
def test_a_row_that_cannot_be_read_is_in_the_way_of_no_order(change: str, tmp_path: Path) -> None:
    """The id map is gone, and the log names whose the newest elements are."""
    store = tmp_path / "store"
    play(store, *adds(20), ("add", [f"n{n}" for n in range(7)], [f"n{n}-0" for n in range(7)]))
    edit(store, f"UPDATE embeddings_queue SET {change} WHERE id = 'n3'")
    (id_map,) = store.glob("*/index_metadata.pickle")
    id_map.unlink()
    (segment,) = hnswcheck.repair(rest(store), dry_run=True).segments
    assert segment.grades == {"proven": 26, "lost": 1}
    assert wrongly_proven(store, truth_of(20, **{f"n{n}": f"n{n}-0" for n in range(7)})) == []


def test_the_last_record_of_a_flush_may_be_written_again_before_the_next(tmp_path: Path) -> None:
    """That was stopped when the id map was empty; sqlite knows of the flush before alone."""
    store = tmp_path / "store"
    play(store, ("add", ["r0"], ["r0-0"]))
    keep_log(store)
    names = [f"r{n}" for n in range(1, 20)]
    play(store, ("add", names, [f"{name}-0" for name in names]))
    (folder,) = segment_folders(store)
    new = [f"n{n}" for n in range(8)]
    steps: list[Step] = [("add", [name], [f"{name}-0"]) for name in new]
    steps[5:5] = [("upsert", [f"r{n}"], [f"r{n}-1"]) for n in (19, 18)]
    play(store, *steps)
    edit(store, "UPDATE max_seq_id SET seq_id = 20 WHERE segment_id = ?", folder.name)
    edit(store, "DELETE FROM embeddings_queue WHERE seq_id < 20")
    (folder / "index_metadata.pickle").write_bytes(b"")
    (segment,) = hnswcheck.repair(rest(store), dry_run=True).segments
    assert segment.grades == {"proven": 28}
    changes = {f"n{n}": f"n{n}-0" for n in range(8)} | {f"r{n}": f"r{n}-1" for n in (18, 19)}
    assert wrongly_proven(store, truth_of(20, **changes)) == []


def test_a_folder_with_the_same_ids_may_be_another_collections(tmp_path: Path) -> None:
    """The same records under two models. Only adds; the log has but what that folder lacks."""
    store = tmp_path / "store"
    play(store, *adds(40))
    others = [(operation, ids, [f"{id}-other" for id in ids]) for operation, ids, _ in adds(30)]
    play(store, *others, collection="other")
    docs, other = sorted(
        segment_folders(store),
        key=lambda folder: -len((folder / "index_metadata.pickle").read_bytes()),
    )
    put_back(docs, other)
    assert wrongly_proven(store, truth_of(40)) == []


def test_ids_that_nobody_knows_are_of_a_folder_that_is_newer(tmp_path: Path) -> None:
    """An older sqlite lay beside it, and what that lacked was added again: the index ignores it."""
    store = tmp_path / "store"
    play(store, *adds(60))
    shutil.copy(store / "chroma.sqlite3", tmp_path / "older")
    play(store, *adds(100)[6:])
    shutil.copy(tmp_path / "older", store / "chroma.sqlite3")
    again = [f"r{n}" for n in range(60, 95)]
    new = [f"r{n}" for n in range(100, 125)]
    steps: list[Step] = [
        ("add", again, [f"{id}-1" for id in again]),
        ("add", new[:19], [f"{id}-0" for id in new[:19]]),
    ]
    play(store, *steps)
    play(store, ("add", new[19:], [f"{id}-0" for id in new[19:]]))
    truth = truth_of(60, **{id: f"{id}-1" for id in again}, **{id: f"{id}-0" for id in new})
    assert wrongly_proven(store, truth) == []


def test_norms_of_an_older_file_are_not_those_of_updated_vectors(tmp_path: Path) -> None:
    """Under cosine; the file is as long as it was before the last flushes."""
    store = tmp_path / "store"
    play(store, *adds(100), space="cosine")
    (folder,) = segment_folders(store)
    older = (folder / "length.bin").read_bytes()
    updated = [f"r{n}" for n in range(10, 20)]
    play(store, ("update", updated, [f"{id}-1" for id in updated]), *adds(150)[10:], space="cosine")
    (folder / "length.bin").write_bytes(older)
    truth = truth_of(150, **{id: f"{id}-1" for id in updated})
    assert wrongly_proven(store, truth) == []


def test_a_deletion_that_left_no_mark_is_not_in_the_index(tmp_path: Path) -> None:
    """r50 is missing by an older folder, an earlier record is deleted, and the id map is gone."""
    store = tmp_path / "store"
    play(store, *adds(50))
    (folder,) = segment_folders(store)
    shutil.copytree(folder, tmp_path / "older")
    touched = [f"r{n}" for n in range(20, 29)]
    play(store, ("update", touched, [f"{id}-0" for id in touched]), ("add", ["x"], ["x-0"]))
    put_back(folder, tmp_path / "older")
    names = [f"s{n}" for n in range(50)]
    play(store, ("add", names, [f"{name}-0" for name in names]))
    play(store, ("delete", ["r3"], ()))
    (folder / "index_metadata.pickle").unlink()
    truth = truth_of(50, x="x-0", **{name: f"{name}-0" for name in names})
    assert wrongly_proven(store, truth) == []
