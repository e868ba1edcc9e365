"""What a real Chroma serves of collections, and what becomes of what is then written to them.

Runs in an environment with chromadb, as ``python serving.py JOB ANSWER``: only the standard
library and chromadb may be used here. Whoever runs it twice has reopened the store.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Operations = list[tuple[str, list[str]]]
#: What 0.6 says where a search arrives at fewer elements than were asked for.
TOO_FEW = "contigious 2D array"


def main(job_file: str, answer_file: str) -> None:
    """Answer about each collection of the job; an answer that was begun is worth having."""
    job: Json = json.loads(Path(job_file).read_text())
    answers: list[Json] = []
    for one in job["collections"]:
        found: Json = {}
        answers.append(found)
        try:
            collection = open_collection(one)
            for number, step in enumerate(one["steps"]):
                take_step(collection, one, step, found, number)
        except BaseException as error:  # noqa: BLE001 - Rust panics are BaseException
            found["error"] = f"{type(error).__name__}: {error}"[:300]
        Path(answer_file).write_text(json.dumps(answers))


def open_collection(job: Json) -> Any:
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(
        path=job["store"],
        settings=Settings(anonymized_telemetry=False),
        tenant=job["tenant"],
        database=job["database"],
    )
    if job.get("make"):
        made = {"hnsw:sync_threshold": 10, "hnsw:batch_size": 5}
        return client.create_collection(job["name"], metadata=made, embedding_function=None)
    return client.get_collection(job["name"])


def take_step(collection: Any, job: Json, step: Json, found: Json, number: int) -> None:
    match step["do"]:
        case "serve":
            serve(collection, job, found, step["results"])
            if len(found["hits"]) < step.get("expected", 0):
                complete(collection, found)
        case "vectors":
            found["vectors"] = {record: vector_of(collection, record) for record in found["ids"]}
        case "write":
            unfound = [record for record in found["ids"] if record not in set(found["hits"])]
            gone = found["hits"][:1] + unfound[:1]
            added = [f"{step['prefix']}{n}" for n in range(step["adds"])]
            play(collection, job, [("delete", gone), ("add", added)], number)
            found["gone"], found["added"] = gone, added
        case "play":
            play(collection, job, step["operations"], number)


def serve(collection: Any, job: Json, found: Json, results: int) -> None:
    """Count, list, and search for so many; 0 for as many as there are."""
    found["count"] = collection.count()
    found["ids"] = list(collection.get(include=[])["ids"])
    found["hits"] = []
    if not found["ids"]:
        return
    try:
        answer = collection.query(
            query_embeddings=[a_vector("somewhere", job["dimension"])],
            n_results=results or len(found["ids"]),
            include=["distances"],
        )
    except Exception as error:
        if TOO_FEW not in str(error):
            raise
    else:
        found["hits"] = list(answer["ids"][0])


def complete(collection: Any, found: Json) -> None:
    """Add what is in the index, but not to be reached from everywhere: HNSW is approximate."""
    hits = set(found["hits"])
    unfound = [record for record in found["ids"] if record not in hits]
    found["hits"] += [record for record in unfound if vector_of(collection, record)]


def vector_of(collection: Any, record: str) -> list[float] | None:
    """None where Chroma cannot find one."""
    try:
        (vector,) = collection.get(ids=[record], include=["embeddings"])["embeddings"]
        return [float(number) for number in vector]
    except Exception:  # noqa: BLE001 - as it says this
        return None


def play(collection: Any, job: Json, operations: Operations, number: int) -> None:
    """Each operation as one call; a record gets another vector in every step and call."""
    for call, (operation, ids) in enumerate(operations):
        if not ids:
            continue
        if operation == "delete":
            collection.delete(ids=ids)
        elif operation == "touch":
            collection.update(ids=ids, metadatas=[{"touched": number}] * len(ids))
        else:
            seeds = (f"{job['seed']}/{number}/{call}/{record}" for record in ids)
            vectors = [a_vector(seed, job["dimension"]) for seed in seeds]
            getattr(collection, operation)(ids=ids, embeddings=vectors)


def a_vector(seed: str, dimension: int) -> list[float]:
    source = random.Random(seed)
    return [source.uniform(-1.0, 1.0) for _ in range(dimension)]


if __name__ == "__main__":
    main(*sys.argv[1:])
