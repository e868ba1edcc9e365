"""Other processes that have a store open."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stores import environment

IMMEDIATE = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None)
database.execute("BEGIN IMMEDIATE")
"""
EXCLUSIVE = IMMEDIATE.replace("IMMEDIATE", "EXCLUSIVE")
READING = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None)
database.execute("BEGIN")
database.execute("SELECT * FROM collections").fetchone()
"""
OPEN = """
import sys
database = open(sys.argv[1] + "/chroma.sqlite3", "rb")
"""
OPEN_INDEX = """
import glob, sys
index = open(glob.glob(sys.argv[1] + "/*/data_level0.bin")[0], "rb")
"""
HARD_LINK = """
import os, sys
os.link(sys.argv[1] + "/chroma.sqlite3", sys.argv[1] + "/../linked")
database = open(sys.argv[1] + "/../linked", "rb")
"""
CHROMA = """
import chromadb, sys
client = chromadb.PersistentClient(sys.argv[1], chromadb.Settings(anonymized_telemetry=False))
client.get_collection("docs").count()
"""
OTHERS = {
    "writes": IMMEDIATE,
    "writes alone": EXCLUSIVE,
    "reads": READING,
    "has the database open": OPEN,
    "has an index open": OPEN_INDEX,
    "has the database open by another name": HARD_LINK,
    "is Chroma": CHROMA,
}
EACH_OF_THEM = [
    pytest.param(who, marks=[pytest.mark.engine] if code is CHROMA else [])
    for who, code in OTHERS.items()
]


@contextmanager
def another(code: str, store: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that does this and stays until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", code + "\nprint('there', flush=True)\nsys.stdin.read()", str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.communicate()
