"""The program starts as fast as its parts allow: nothing is imported before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from inspect import signature
from typing import get_args

import pytest
from stores import environment

from hnswcheck.cli import choosing, options
from hnswcheck.cli import repair as command
from hnswcheck.repairing.choices import ACCEPTABLE, Verify
from hnswcheck.repairing.embedder import BATCH
from hnswcheck.report import Level

IMPORTED = """
import contextlib, io, json, sys
with contextlib.redirect_stdout(io.StringIO()):
    from hnswcheck.cli import app
    code = app.run(sys.argv[1:])
json.dump([code, sorted(sys.modules)], sys.stdout)
"""
#: Each takes longer to import than all of typer, or is a library that no help page needs.
HEAVY = {"numpy", "rich", "sqlite3", "multiprocessing", "tarfile", "chromadb", "hnswlib", "pyarrow"}
#: What the command line knows of the library before a command runs.
LIGHT = {
    "hnswcheck",
    "hnswcheck._version",
    "hnswcheck.errors",
    "hnswcheck.formats",
    "hnswcheck.formats.text",
    "hnswcheck.isolation",
    "hnswcheck.kinds",
    "hnswcheck.progress",
}


@pytest.mark.parametrize(
    "words", ["--version", "--help", "audit --help", "repair --help", "--unknown"]
)
def test_version_and_help_import_nothing_of_the_library(words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *words.split()],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    code, modules = json.loads(done.stdout)
    assert code == (2 if words == "--unknown" else 0)
    assert HEAVY & set(modules) == set()
    ours = {name for name in modules if name.partition(".")[0] == "hnswcheck"}
    assert {name for name in ours if not name.startswith("hnswcheck.cli")} == LIGHT


def test_help_names_the_words_that_the_library_knows() -> None:
    """They are written out there, since the library is not imported for them."""
    assert f"[{'|'.join(Level)}]" == choosing.LEVELS
    (accept,) = get_args(options.AcceptedGrades)[1:]
    (verify,) = get_args(options.VerifiedBy)[1:]
    assert all(grade in accept.help for grade in ACCEPTABLE)
    assert verify.metavar == f"[{'|'.join(Verify)}]"
    assert signature(command.repair).parameters["batch_size"].default == BATCH
