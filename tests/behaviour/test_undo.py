"""A repair can be undone as long as nothing is lost by it, whatever Chroma did in between."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from histories import Step, adds, edit, play, put_back
from stores import environment, rest, segment_folders

import hnswcheck

pytestmark = pytest.mark.usefixtures("chroma")
pytest.importorskip("hnswlib", reason="an index cannot be built without it")

OTHERS = """
import sys, chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
if sys.argv[2] == "delete":
    client.delete_collection(sys.argv[3])
else:
    settings = {"hnsw": {"sync_threshold": 10, "batch_size": 5}}
    made = client.get_or_create_collection(
        sys.argv[3], configuration=settings, embedding_function=None
    )
    for n in range(int(sys.argv[4])):
        made.add(ids=[str(n)], embeddings=[[float(n), 1.0]])
    made.query(query_embeddings=[[1.0, 1.0]], n_results=1)
"""


def others(store: Path, *arguments: str) -> None:
    """Let Chroma do something with another collection."""
    subprocess.run(
        [sys.executable, "-c", OTHERS, str(store), *arguments], check=True, env=environment()
    )


def repaired(store: Path, **choices: object) -> str:
    """The quarantine that undoes it."""
    rest(store)
    report = hnswcheck.repair(store, verify="audit", **choices)  # type: ignore[arg-type]
    (segment,) = report.repaired
    assert segment.replaced is not None
    return segment.replaced


def one_by_one(operation: str, *names: str) -> list[Step]:
    return [(operation, [name], [f"{name}-1"]) for name in names]


def test_a_watermark_that_was_ahead_does_not_swallow_what_was_written_since(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    play(store, *adds(20))
    (folder,) = segment_folders(store)
    edit(store, "UPDATE max_seq_id SET seq_id = 9000 WHERE segment_id = ?", folder.name)
    quarantine = repaired(store)
    play(store, *one_by_one("add", "a", "b", "c"))
    with pytest.raises(hnswcheck.RestoreRefused, match="3 written and 0 deleted"):
        hnswcheck.restore(store, quarantine)


def test_numbers_that_a_deleted_collection_gave_back_hide_no_write(tmp_path: Path) -> None:
    store = tmp_path / "store"
    play(store, *adds(20))
    (folder,) = segment_folders(store)
    (folder / "header.bin").unlink()
    others(store, "add", "other", "20")
    quarantine = repaired(store)
    others(store, "delete", "other")
    play(store, *one_by_one("add", *(f"n{n}" for n in range(10))))
    others(store, "add", "another", "10")
    with pytest.raises(hnswcheck.RestoreRefused, match="9 written and 0 deleted"):
        hnswcheck.restore(store, quarantine)  # the tenth is in the log


@pytest.mark.parametrize("flushed", [False, True])
def test_a_write_of_metadata_alone_costs_no_vector(flushed: bool, tmp_path: Path) -> None:
    store = tmp_path / "store"
    play(store, *adds(20))
    edit(store, "DELETE FROM embeddings WHERE embedding_id = 'r7'")
    quarantine = repaired(store, accept=["unconfirmed"])
    metadata = """
import sys, chromadb
docs = chromadb.PersistentClient(sys.argv[1]).get_collection("docs", embedding_function=None)
for n in range(int(sys.argv[2])):
    docs.update(ids=["r5"], metadatas=[{"n": n}])
docs.query(query_embeddings=[[1.0] * 8], n_results=1)
"""
    count = "25" if flushed else "1"
    command = [sys.executable, "-c", metadata, str(store), count]
    subprocess.run(command, check=True, env=environment())
    assert hnswcheck.restore(store, quarantine).done
    assert len(play(store, ("delete", ["r7"], ()), read=True)) == 19


def test_what_others_write_is_not_in_the_way(tmp_path: Path) -> None:
    """Of a folder that was gone nothing can be put back, nor is anything lost by that."""
    store = tmp_path / "store"
    play(store, *adds(20), *one_by_one("add", "a", "b"))
    (folder,) = segment_folders(store)
    shutil.rmtree(folder)
    quarantine = repaired(store, leave_unindexed=True)
    others(store, "add", "other", "3")
    assert hnswcheck.restore(store, quarantine).done
    assert list(folder.iterdir()) == []


def test_what_was_accepted_is_never_proven_afterwards(tmp_path: Path) -> None:
    """Not by the folder that the undone repair made, nor where it stayed."""
    store = tmp_path / "store"
    play(store, *adds(20))
    (folder,) = segment_folders(store)
    shutil.copytree(folder, tmp_path / "older")
    play(store, *one_by_one("update", "r3", *["r4"] * 8), *one_by_one("add", "X"))
    put_back(folder, tmp_path / "older")
    (segment,) = hnswcheck.repair(rest(store), dry_run=True).segments
    grades = segment.grades
    assert grades["unconfirmed"] > 10
    quarantine = repaired(store, accept=["unconfirmed", "outdated"])
    manifest = json.loads((store / f"{quarantine}.json").read_text())
    assert "r3" in manifest["accepted"]["unconfirmed"]

    stayed = tmp_path / "stayed"
    shutil.copytree(store, stayed)
    (stayed / folder.name / "header.bin").unlink()
    (again,) = hnswcheck.repair(rest(stayed), dry_run=True).segments
    assert again.grades == grades

    hnswcheck.restore(store, quarantine)
    (again,) = hnswcheck.repair(rest(store), dry_run=True).segments
    assert again.grades == grades
