"""What the tests of a run share, and Hypothesis profiles; HYPOTHESIS_PROFILE chooses one.

"ci", the default, draws the same examples every time. "thorough" draws many new ones.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from crashes import build_tracer, can_fail, may_trace, prepare_worker
from hypothesis import HealthCheck, settings
from stores import TEST_RUN

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


@pytest.fixture(scope="session")
def chroma() -> None:
    """What needs chromadb asks for this; so it is skipped where there is none, and marked."""
    pytest.importorskip("chromadb", reason="the engine is the judge")


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by what a test asks for, and begin with the slow files, so that none is left alone."""
    for item in items:
        wanted = getattr(item, "fixturenames", ())
        if "chroma" in wanted:
            item.add_marker("engine")
        if "tracer" in wanted:
            item.add_marker("crash")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("engine") is not None:
        pytest.importorskip("chromadb", reason="the engine is the judge")


def pytest_configure(config: pytest.Config) -> None:
    """Workers have what their controller made, also where Ctrl-C is not for a background job."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if TEST_RUN not in os.environ:
        shared = tempfile.TemporaryDirectory()
        os.environ[TEST_RUN] = shared.name
        config.add_cleanup(shared.cleanup)


#: Trials mostly sleep: sqlite syncs, and an audit waits for the clock of the files to tick.
WORKERS = 4


@pytest.fixture(scope="module")
def tracer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = build_tracer(tmp_path_factory.mktemp("tracer"))
    if library is None:
        pytest.skip("no C compiler here, or no Linux")
    return library


@pytest.fixture(scope="module")
def workers(
    tracer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessPoolExecutor]:
    spawn = multiprocessing.get_context("spawn")
    scratch = tmp_path_factory.mktemp("scratch")
    with ProcessPoolExecutor(WORKERS, spawn, prepare_worker, (scratch,)) as pool:
        if pool.submit(may_trace, tracer).result():
            yield pool
        else:
            pytest.skip("ptrace is not permitted here")


@pytest.fixture(scope="module")
def refusing(tracer: Path) -> None:
    if not can_fail(tracer):
        pytest.skip("calls can be refused on x86-64 only")
