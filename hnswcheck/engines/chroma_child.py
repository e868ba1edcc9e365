"""Run as a script, in a process that may die of it: what does the real chromadb do with a store?

``version`` prints which chromadb there is. ``examine`` reads a job from stdin, opens the store it
names, which is a copy, and reads, searches and writes one collection. What it finds goes line by
line into a file, so that a death tells where it came. Nothing is judged here, and nothing but the
standard library and chromadb is imported. The Python may be 3.9 already.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Json = dict[str, Any]

#: In 0.x a search for more than an index can arrive at is an error.
HITS = (50, 5)
#: Of so many hits of each search the vectors are read, too.
NEAREST = 3
NEW_ID = "hnswcheck-{}"


def packed(vector: Sequence[float]) -> str:
    """float32 as text."""
    return base64.b64encode(array("f", vector).tobytes()).decode()


def unpacked(text: str) -> list[float]:
    """The other way round."""
    return array("f", base64.b64decode(text)).tolist()


def version() -> Json:
    """Which chromadb can be imported and has an engine; else why none."""
    import chromadb

    if getattr(chromadb, "is_thin_client", False):
        return {"unable": "only its client is installed"}
    if chromadb.__version__.startswith("0."):
        import hnswlib

        if not hasattr(hnswlib.Index, "persist_dirty"):
            return {"unable": "hnswlib is installed where it needs chroma-hnswlib"}
    return {"version": chromadb.__version__}


class Examination:
    """One collection, read, searched and written."""

    def __init__(self, job: Json) -> None:
        self.job = job
        self.answers = Path(job["answers"]).open("w", encoding="utf-8")  # noqa: SIM115

    def write(self, **event: Any) -> None:
        """One line of the answers, on disk at once."""
        print(json.dumps(event), file=self.answers, flush=True)

    @contextmanager
    def step(self, name: str) -> Iterator[Json]:
        """What is put into the yielded dict is written down, or the error that ended it."""
        self.write(begin=name)
        found: Json = {}
        try:
            yield found
        except BaseException as error:  # Rust's panics are no Exceptions
            says = " ".join(str(error).split())[:300]
            self.write(step=name, error=f"{type(error).__name__}: {says}")
            raise
        self.write(step=name, **found)

    def run(self) -> None:
        """All steps, each of which may be the last."""
        with self.step("opening it"):
            collection = self.open()
        with self.step("count()") as found:
            found["count"] = collection.count()
        ids: list[str] = self.job["ids"]
        if ids:
            with self.step("get() of vectors") as found:
                answer = collection.get(ids=ids, include=["embeddings"])
                found["ids"] = answer["ids"]
                found["vectors"] = [packed(vector) for vector in answer["embeddings"]]
            with self.step("query()") as found:
                answer = self.search(collection)
                found.update(hits=answer["ids"], distances=answer["distances"])
                near = list(dict.fromkeys(hit for hits in answer["ids"] for hit in hits[:NEAREST]))
                answer = collection.get(ids=near, include=["embeddings"])
                found["ids"] = answer["ids"]
                found["vectors"] = [packed(vector) for vector in answer["embeddings"]]
        with self.step("add()") as found:
            new = self.add(collection)
            answer = collection.get(ids=[new], include=["embeddings"])
            found["vectors"] = [packed(vector) for vector in answer["embeddings"]]
            found["count"] = collection.count()
        with self.step("delete()") as found:
            collection.delete(ids=[new])
            found["count"] = collection.count()

    def open(self) -> Any:
        """The collection, as any client gets it."""
        import chromadb
        from chromadb.config import Settings

        client = chromadb.PersistentClient(
            path=self.job["store"],
            settings=Settings(anonymized_telemetry=False),
            tenant=self.job["tenant"],
            database=self.job["database"],
        )
        return client.get_collection(self.job["collection"])

    def search(self, collection: Any) -> Any:
        """The answer to a query for the vectors; with fewer hits where more are refused."""
        vectors = [unpacked(vector) for vector in self.job["vectors"]]
        for number in HITS:
            with suppress(Exception) if number != HITS[-1] else _nothing():
                return collection.query(
                    query_embeddings=vectors,
                    n_results=min(number, self.job["indexed"]),
                    include=["distances"],
                )
        return None

    def add(self, collection: Any) -> str:
        """Add one record under an id that nobody has; the id."""
        number = 0
        while collection.get(ids=[NEW_ID.format(number)], include=[])["ids"]:
            number += 1
        collection.add(ids=[NEW_ID.format(number)], embeddings=[unpacked(self.job["new"])])
        return NEW_ID.format(number)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def limit(file_bytes: int) -> None:
    """A torn index can make the engine write without end."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))


def main() -> None:
    """Do what the arguments say, with modules that are not beside this file: one is ``hnswlib``."""
    beside = str(Path(__file__).parent)
    sys.path[:] = [place for place in sys.path if place != beside]
    if sys.argv[1:] == ["version"]:
        print(json.dumps(version()), flush=True)
    if sys.argv[1:] == ["examine"]:
        job = json.load(sys.stdin)
        limit(job["file_bytes"])
        Examination(job).run()
        # Chroma writes nothing more at its end; its threads would only delay it.
        os._exit(0)


if __name__ == "__main__":
    main()
