"""Lets the chromadb of this interpreter make a store, or read one; nothing else is imported.

    effects_worker.py make DIRECTORY < [[id, number], ...]
    effects_worker.py read DIRECTORY RESULTS > {"records": [id, ...], "index": {id: number}}
                                             > {"error": what chromadb raised}

The vector of a number n is [n, 0, 0], so that its squared distance from a far point tells n.
RESULTS is how many of the nearest are asked for, 0 for all: 0.x fails where elements are missing.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

import chromadb
from chromadb.config import Settings

THRESHOLD, BATCH = 10, 5
FAR = 3000.0


def make(client: Any) -> None:
    settings = {
        "hnsw:sync_threshold": THRESHOLD,
        "hnsw:batch_size": BATCH,
        "hnsw:search_ef": 100,
    }
    collection = client.create_collection("docs", metadata=settings)
    for id, number in json.load(sys.stdin):
        collection.add(ids=[id], embeddings=[[float(number), 0.0, 0.0]])


def read(client: Any) -> dict[str, Any]:
    collection = client.get_collection("docs")
    records = collection.get(include=[])["ids"]
    found = collection.query(
        query_embeddings=[[FAR, 0.0, 0.0]],
        n_results=int(sys.argv[3]) or len(records),
        include=["distances"],
    )
    numbers = [round(FAR - math.sqrt(distance)) for distance in found["distances"][0]]
    return {"records": records, "index": dict(zip(found["ids"][0], numbers, strict=True))}


def main() -> None:
    action, store = sys.argv[1:3]
    client = chromadb.PersistentClient(store, Settings(anonymized_telemetry=False))
    if action == "make":
        make(client)
    else:
        try:
            answer = read(client)
        except Exception as error:  # noqa: BLE001 - whatever chromadb raises is the answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
