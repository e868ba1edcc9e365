"""Where the versions of chromadb are that a test asks."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

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
