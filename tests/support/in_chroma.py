"""Runs where chromadb is, of any release from 0.4.24: what a real Chroma does with a store.

``python in_chroma.py COMMAND ARGUMENT...``; jobs and answers are JSON files.

* ``answer JOB ANSWER``: serve collections, and write to them. Run twice, it has reopened the store.
* ``play STORE JOB``: operations on a collection, each as one call; what it has then, if asked.
* ``live STORE JOB``: one run of an application: reads and searches a collection, then writes to it.
* ``vectors STORE ANSWER``: every vector of every collection.
* ``write STORE JOB``: collections of the vectors in a file, flushed.
* ``open STORE JOB``: list all collections; count, get, search and write each of them.
* ``search STORE JOB``: what Chroma gets and finds there, into a file.

Only the standard library, chromadb, and the numpy that comes with it may be used here.
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
#: Operations that 0.x wants before it flushes, at the least.
FEWEST = 3


def answer_about(job_file: str, answer_file: str) -> None:
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


def client_of(store: str, **where: str) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(
        path=store, settings=Settings(anonymized_telemetry=False), **where
    )


def open_collection(job: Json) -> Any:
    client = client_of(job["store"], tenant=job["tenant"], database=job["database"])
    if job.get("make"):
        made = {"hnsw:sync_threshold": 10, "hnsw:batch_size": 5}
        return client.create_collection(job["name"], metadata=made, embedding_function=None)
    return client.get_collection(job["name"])


def take_step(collection: Any, job: Json, step: Json, found: Json, number: int) -> None:
    match step["do"]:
        case "serve":
            serve(collection, job, found, step["results"], step.get("expected", 0))
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


def serve(collection: Any, job: Json, found: Json, results: int, expected: int = 0) -> None:
    """Count, list, and search for so many; 0 for as many as there are, or are expected."""
    found["count"] = collection.count()
    found["ids"] = list(collection.get(include=[])["ids"])
    found["hits"] = []
    results = results or max(len(found["ids"]), expected)
    if not results:
        return
    try:
        answer = collection.query(
            query_embeddings=[a_vector("somewhere", job["dimension"])],
            n_results=results,
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


# --- Steps on one collection, and all its vectors -------------------------------------------------


def play_steps(client: Any, job: Json) -> Any:
    """Steps of (operation, ids, vectors), each as one call."""
    if job["made"] is None:
        collection = client.get_collection(job["name"])
    else:
        collection = client.get_or_create_collection(
            job["name"], embedding_function=None, **job["made"]
        )
    for operation, ids, vectors in job["steps"]:
        if operation == "delete":
            collection.delete(ids=ids)
        else:
            getattr(collection, operation)(ids=ids, embeddings=vectors)
    return collection


def read(collection: Any) -> dict[str, list[float]]:
    """All ids with their vectors, by one call."""
    found = collection.get(include=["embeddings"])
    return {
        record: [float(number) for number in vector]
        for record, vector in zip(found["ids"], found["embeddings"], strict=True)
    }


def live(client: Any, job: Json) -> Json:
    """What an application sees of a collection before it plays its steps."""
    found: Json = {}
    job = job | {"dimension": len(job["steps"][0][2][0])}
    collection = client.get_collection(job["name"])
    serve(collection, job, found, 0)
    complete(collection, found)
    found["vectors"] = {record: vector_of(collection, record) for record in found["ids"]}
    play_steps(client, job)
    return found


def read_vectors(client: Any) -> list[list[Any]]:
    """Every collection's name, and of every record its vector; None where it cannot be had."""
    found = []
    for collection in client.list_collections():
        records = collection.get(include=[])["ids"]
        found.append([collection.name, {one: vector_of(collection, one) for one in records}])
    return found


def open_all(client: Any, job: Json) -> None:
    """Use each collection of the job; an error or a wrong count ends it."""
    assert len(client.list_collections()) == len(job["collections"])
    for one in job["collections"]:
        collection = client.get_collection(one["name"])
        total, dimension = one["records"], one["dimension"]
        assert collection.count() == total
        assert len(collection.get(include=["embeddings"])["embeddings"]) == total
        ids = [f"new-{n}" for n in range(FEWEST)]
        vectors = [a_vector(record, dimension) for record in ids]
        collection.add(ids=ids, embeddings=vectors)
        assert collection.count() == total + FEWEST
        found = collection.query(query_embeddings=vectors, n_results=1, include=["distances"])
        assert [hits[0] for hits in found["ids"]] == ids
        collection.delete(ids=ids)
        assert collection.count() == total


# --- Vectors from a file --------------------------------------------------------------------------


def identifiers(count: int) -> list[str]:
    return [f"id-{n:05d}" for n in range(count)]


def write_vectors(client: Any, job: Json) -> None:
    """Add the vectors in one go, and be flushed then."""
    import numpy as np

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


def search(client: Any, job: Json) -> None:
    """What get() gives, and what a search for each of some vectors finds."""
    import numpy as np

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


def run(command: str, *arguments: str) -> None:
    if command == "answer":
        answer_about(*arguments)
        return
    store, file = arguments
    client, job = client_of(store), Path(file)
    match command:
        case "play":
            steps = json.loads(job.read_text())
            collection = play_steps(client, steps)
            job.write_text(json.dumps(read(collection) if steps.get("read") else {}))
        case "live":
            job.write_text(json.dumps(live(client, json.loads(job.read_text()))))
        case "vectors":
            job.write_text(json.dumps(read_vectors(client)))
        case "open":
            open_all(client, json.loads(job.read_text()))
        case "write":
            for one in json.loads(job.read_text()):
                write_vectors(client, one)
        case "search":
            for one in json.loads(job.read_text()):
                search(client, one)
        case _:
            raise SystemExit(f"no such command: {command}")


if __name__ == "__main__":
    run(*sys.argv[1:])
