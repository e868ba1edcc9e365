"""Histories that real Chroma plays, and what became of them after a repair.

Vectors have keys, so that the test knows every one.
"""

from __future__ import annotations

import shutil
import sqlite3
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from environments import in_chroma
from stores import rest

import hnswcheck

#: (operation, ids, keys of their vectors); "" for none. What ``*1e9`` follows is multiplied.
Step = tuple[str, Sequence[str], Sequence[str]]
Truth = dict[str, str]


def play(
    store: Path,
    *steps: Step,
    read: bool = False,
    dimension: int = 8,
    collection: str = "docs",
    space: str = "l2",
) -> dict[str, list[float]]:
    """Let Chroma do it, in a process of its own; the vectors that it has then."""
    settings = {"hnsw": {"sync_threshold": 10, "batch_size": 5, "space": space}}
    job = {
        "name": collection,
        "made": {"configuration": settings},
        "steps": [
            (operation, ids, [vector(key, dimension).tolist() for key in keys] or None)
            for operation, ids, keys in steps
        ],
        "read": read,
    }
    found: dict[str, list[float]] = in_chroma("play", store, job)
    return found


def vector(key: str, dimension: int = 8) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    key, _, scale = key.partition("*")
    random = np.random.default_rng(zlib.crc32(key.encode()))
    return random.standard_normal(dimension).astype(np.float32) * np.float32(scale or 1)


def adds(count: int) -> list[Step]:
    """Ten at a time, r0 and on; the first vector of r0 is r0-0."""
    names = [f"r{n}" for n in range(count)]
    return [
        ("add", names[at : at + 10], [f"{name}-0" for name in names[at : at + 10]])
        for at in range(0, count, 10)
    ]


def truth_of(count: int, **changes: str) -> Truth:
    return {f"r{n}": f"r{n}-0" for n in range(count)} | changes


def edit(store: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as database, database:
        database.execute(statement, values)


def keep_log(store: Path) -> None:
    """Let nothing be purged from now on."""
    keeps = '{"automatically_purge": false, "_type": "EmbeddingsQueueConfigurationInternal"}'
    edit(store, "DELETE FROM embeddings_queue_config")
    edit(store, "INSERT INTO embeddings_queue_config (id, config_json_str) VALUES (1, ?)", keeps)


def wrongly_proven(store: Path, truth: Truth) -> list[str]:
    """Records that were called proven and have another vector once all was repaired."""
    rest(store)
    grades = ("inferred", "unconfirmed", "outdated", "suspect")
    report = hnswcheck.repair(store, accept=grades, leave_unindexed=True, verify="audit")
    proven = {
        record.id
        for segment in report.segments
        for record in segment.records()
        if record.grade == "proven"
    }
    assert proven
    shutil.copytree(store, store.with_name("copy"))
    # Records that are lost have no vector, at which get() fails: read those that have one.
    steps: list[Step] = []
    lost = [r.id for s in report.segments for r in s.records() if r.grade == "lost"]
    if lost:
        steps.append(("delete", lost, ()))
    found = play(store.with_name("copy"), *steps, read=True)
    return sorted(id for id in proven if not np.allclose(found[id], vector(truth[id]), atol=1e-5))


def put_back(folder: Path, older: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(older, folder)
