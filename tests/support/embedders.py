"""Real embedding functions of chromadb, and a real store whose collections keep them.

``python embedders.py STORE`` makes it. Functions that are to be counted write each document that
they are asked for to the file $ASKED; from document $STOPS on they fail, or wait to be killed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb import EmbeddingFunction
from chromadb.utils.embedding_functions import known_embedding_functions

DIMENSION = 8
RECORDS = 60
#: By what the vectors of a collection's function are multiplied when it is made.
FACTORS = {"docs": 2.0, "more": 3.0, "stranger": 1.0}
ASKED, STOPS, WAITS = "ASKED", "STOPS", "WAITS"


def document(n: int) -> str:
    """The document of a record; those from 50 on have the same as the first."""
    return f"document {n % 50} \N{SNOWMAN}"


def vector(text: str, factor: float) -> list[float]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    return (np.random.default_rng(seed).standard_normal(DIMENSION) * factor).tolist()  # type: ignore[no-any-return]


def asked() -> list[str]:
    path = Path(os.environ[ASKED])
    return path.read_text("utf-8").splitlines() if path.exists() else []


def numbers(texts: list[str], factor: float = 1.0) -> list[list[float]]:
    """The vectors of some texts, noting what was asked for."""
    if ASKED in os.environ:
        stops = int(os.environ.get(STOPS, sys.maxsize))
        if len(asked()) + len(texts) > stops:
            if WAITS in os.environ:
                print("waiting", file=sys.__stdout__, flush=True)
                time.sleep(60)
            raise ConnectionError("the model went away\nwith details")
        with Path(os.environ[ASKED]).open("a", encoding="utf-8") as file:
            file.writelines(f"{text}\n" for text in texts)
    return [vector(text, factor) for text in texts]


class Numbers(EmbeddingFunction):  # type: ignore[misc]
    """An embedding function with settings, as chromadb wants one."""

    own_name = "numbers"

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, input: list[str]) -> Any:
        return [np.array(one, np.float32) for one in numbers(list(input), self.factor)]

    @classmethod
    def name(cls) -> str:
        return cls.own_name

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor}

    @classmethod
    def build_from_config(cls, config: dict[str, Any]) -> Numbers:
        return cls(config["factor"])


class Stranger(Numbers):
    own_name = "stranger"


class LikeOpenAI(Numbers):
    """Kept under a name of chromadb's own with settings as that has them."""

    own_name = "openai"

    def get_config(self) -> dict[str, Any]:
        return {"api_key_env_var": "NO_SUCH_KEY", "model_name": "text-embedding-3-small"}

    @classmethod
    def build_from_config(cls, config: dict[str, Any]) -> LikeOpenAI:
        return cls()


class Legacy(EmbeddingFunction):  # type: ignore[misc]
    """Of the time before functions had names."""

    def __init__(self) -> None:
        pass

    def __call__(self, input: list[str]) -> Any:
        return [np.array(one, np.float32) for one in numbers(list(input))]


def register(kind: type[Numbers] = Numbers) -> None:
    known_embedding_functions[kind.own_name] = kind


def make(store: Path) -> None:
    """A flushed collection for each function, whose log is empty."""
    client = chromadb.PersistentClient(str(store))
    kinds: dict[str, EmbeddingFunction | None] = {  # type: ignore[type-arg, unused-ignore]
        "docs": Numbers(FACTORS["docs"]),
        "more": Numbers(FACTORS["more"]),
        "stranger": Stranger(),
        "openai": LikeOpenAI(),
        "legacy": Legacy(),
        "none": None,
    }
    for kind in (Numbers, Stranger, LikeOpenAI):
        register(kind)
    for name, function in kinds.items():
        # Beside a configuration "legacy" would be kept where there is no function.
        collection = client.create_collection(
            name,
            embedding_function=function,
            metadata={"hnsw:sync_threshold": RECORDS // 2, "hnsw:batch_size": RECORDS // 2},
        )
        texts = [document(n) for n in range(RECORDS)]
        given = [vector(text, 1.0) for text in texts] if function is None else None
        for first in range(0, RECORDS, RECORDS // 2):
            part = slice(first, first + RECORDS // 2)
            ids = [f"id-{n:03d}" for n in range(RECORDS)][part]
            collection.add(ids=ids, documents=texts[part], embeddings=given and given[part])


if __name__ == "__main__":
    make(Path(sys.argv[1]))
