"""Runs where chromadb is: plays operations on a collection, or reads all its vectors.

``played.py play STORE JOB`` or ``played.py read STORE ANSWER``; JOB and ANSWER are JSON files. Only
the standard library and chromadb may be imported here.
"""

import json
import sys
from pathlib import Path
from typing import Any

import chromadb
from chromadb.config import Settings


def play(client: Any, job: dict[str, Any]) -> None:
    """Steps of (operation, ids, vectors), each as one call."""
    collection = client.get_or_create_collection(job["name"], metadata=job["metadata"])
    for operation, ids, vectors in job["steps"]:
        if operation == "delete":
            collection.delete(ids=ids)
        else:
            getattr(collection, operation)(ids=ids, embeddings=vectors)


def read(client: Any) -> list[list[Any]]:
    """Every collection's name, and of every record its vector; None where it cannot be had."""
    found = []
    for collection in client.list_collections():
        vectors: dict[str, list[float] | None] = {}
        for record in collection.get(include=[])["ids"]:
            try:
                answer = collection.get(ids=[record], include=["embeddings"])["embeddings"]
                vectors[record] = [float(value) for value in answer[0]]
            except Exception:  # noqa: BLE001 - "Error finding id"
                vectors[record] = None
        found.append([collection.name, vectors])
    return found


if __name__ == "__main__":
    _, action, store, file = sys.argv
    client = chromadb.PersistentClient(store, Settings(anonymized_telemetry=False))
    if action == "play":
        play(client, json.loads(Path(file).read_text()))
    else:
        Path(file).write_text(json.dumps(read(client)))
