"""No unit test may ask Chroma: it is hidden from them, as where it is not installed."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def without_chromadb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chromadb", None)
