"""How long a statement may run, apart from sqlite."""

from __future__ import annotations

import math
import time

import pytest

from hnswcheck.store.database import _Allowance


@pytest.mark.parametrize("callbacks", [0, 1, 3])
def test_a_statement_runs_for_as_many_callbacks_as_it_is_allowed(callbacks: int) -> None:
    allowance = _Allowance(callbacks, math.inf)
    for left in range(callbacks, 0, -1):
        assert allowance.callbacks == left
        assert not allowance.stop()
    assert allowance.callbacks == 0
    assert allowance.stop()
    assert allowance.stop()


def test_a_statement_that_runs_past_its_deadline_stops_with_callbacks_left() -> None:
    allowance = _Allowance(1000, math.inf)
    assert not allowance.stop()
    allowance = _Allowance(1000, time.monotonic() - 1)
    assert allowance.stop()
    assert allowance.callbacks > 0
