"""Hypothesis profiles; HYPOTHESIS_PROFILE chooses one.

"ci", the default, draws the same examples every time. "thorough" draws many new ones.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    print_blob=True,
    max_examples=100,
    suppress_health_check=SLOW,
)
settings.register_profile(
    "thorough",
    deadline=None,
    print_blob=True,
    max_examples=5_000,
    suppress_health_check=SLOW,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
