"""The silent default is a progress like any other."""

from __future__ import annotations

import pytest

from hnswcheck.progress import Progress, silent


def test_the_default_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    default: Progress = silent
    default(1, 2, "a file")
    assert capfd.readouterr() == ("", "")
