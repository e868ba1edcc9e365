"""Runs where chromadb is: writes collections, and reads and searches them.

``rebuild_worker.py write|read STORE JOB`` where JOB is a JSON file: a list of collections with
name, space, count, dimension, and the files that hold their vectors or get the answers. Only the
standard library, numpy and chromadb may be imported here, and only what chromadb 0.4.24 has.
"""

import json
import sys
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings

#: Operations that 0.x wants before it flushes, at the least.
FEWEST = 3
Job = dict[str, Any]


def identifiers(count: int) -> list[str]:
    return [f"id-{n:05d}" for n in range(count)]


def write(client: Any, job: Job) -> None:
    """Add the vectors in one go, and be flushed then."""
    operations = max(job["count"], FEWEST)
    metadata = {
        "hnsw:space": job["space"],
        "hnsw:sync_threshold": operations,
        "hnsw:batch_size": operations,
        "hnsw:search_ef": job["search_ef"],
    }
    collection = client.create_collection(job["name"], metadata=metadata)
    ids = identifiers(job["count"])
    collection.add(ids=ids, embeddings=np.load(job["vectors"]).tolist())
    for n in range(operations - job["count"]):
        collection.update(ids=ids[:1], metadatas=[{"n": n}])


def read(client: Any, job: Job) -> None:
    """What get() gives, and what a search for each of some vectors finds."""
    collection = client.get_collection(job["name"])
    ids = identifiers(job["count"])
    answer = collection.get(include=["embeddings"])
    place = {record: n for n, record in enumerate(answer["ids"])}
    stored = np.array(answer["embeddings"], np.float32)[[place[record] for record in ids]]
    wanted = np.load(job["queries"])
    found = collection.query(query_embeddings=wanted.tolist(), n_results=job["results"])
    hits = [[int(record[3:]) for record in row] for row in found["ids"]]
    np.savez(
        job["answers"],
        count=collection.count(),
        stored=stored,
        hits=np.array(hits),
        distances=np.array(found["distances"]),
    )


if __name__ == "__main__":
    _, action, store, jobs = sys.argv
    client = chromadb.PersistentClient(store, Settings(anonymized_telemetry=False))
    for job in json.loads(Path(jobs).read_text()):
        (write if action == "write" else read)(client, job)
