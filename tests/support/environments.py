"""Where the versions of chromadb are that a test asks, and fresh processes of them."""

from __future__ import annotations

import atexit
import json
import os
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from oracle import Death, Engine

IN_CHROMA = Path(__file__).with_name("in_chroma.py")
TIME_LIMIT = 120.0

#: The version of each line that is asked; a store of the corpus is named after the same ones.
VERSIONS = {"0.4": "0.4.24", "0.5": "0.5.23", "0.6": "0.6.3", "1.0": "1.0.20", "1.5": "1.5.9"}


def python_of(wanted: str) -> str:
    """The Python of an environment with this version of chromadb; skips where there is none."""
    try:
        if version("chromadb") == wanted:
            return sys.executable
    except PackageNotFoundError:
        pass
    environments = os.environ.get("HNSWCHECK_ENVS")
    python = Path(environments or "/nowhere", f"c{wanted}", "bin", "python")
    if not python.exists():
        pytest.skip(f"HNSWCHECK_ENVS names no environment with chromadb {wanted}")
    return str(python)


@cache
def engine_of(python: str = sys.executable) -> Engine:
    """An interpreter that has imported its chromadb, for all tests of this process."""
    engine = Engine(python)
    atexit.register(engine.close)
    return engine


class Tried(NamedTuple):
    """What a command of in_chroma.py printed, and its job's file after it."""

    death: Death
    output: str
    answer: Any


def try_in_chroma(command: str, store: Path, job: object, python: str = sys.executable) -> Tried:
    """Run a command of in_chroma.py with a store, in a fresh process."""
    with TemporaryDirectory() as scratch:
        file, output = Path(scratch, "job"), Path(scratch, "output")
        file.write_text(json.dumps(job))
        arguments = [command, str(store), str(file)]
        death = engine_of(python).run(IN_CHROMA, arguments, output, TIME_LIMIT)
        return Tried(death, output.read_text(errors="replace"), json.loads(file.read_text()))


def in_chroma(command: str, store: Path, job: object = None, python: str = sys.executable) -> Any:
    """The answer of a command that must succeed."""
    tried = try_in_chroma(command, store, job, python)
    assert tried.death == Death(0, hung=False), tried.output[-2000:]
    return tried.answer
