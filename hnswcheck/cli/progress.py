"""A progress bar on stderr, for a person who waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hnswcheck.cli.terminal import is_terminal, visible
from hnswcheck.progress import Progress as Listener
from hnswcheck.progress import silent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Nothing is shown for what takes less.
DELAY_SECONDS = 1.0


@contextmanager
def shown(enabled: bool) -> Iterator[Listener]:
    """A listener for :func:`hnswcheck.audit`; silent unless stderr is a terminal."""
    if not enabled or not is_terminal(sys.stderr):
        yield silent
        return
    started = time.monotonic()
    bar: Progress | None = None
    task: TaskID | None = None

    def listen(done: int, total: int, what: str) -> None:
        nonlocal bar, task
        if bar is None or task is None:
            if time.monotonic() - started < DELAY_SECONDS:
                return
            bar = _started_bar()
            task = bar.add_task("", total=total)
        bar.update(task, completed=done, total=total, description=visible(what))

    try:
        yield listen
    finally:
        if bar is not None:
            bar.stop()


def _started_bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    bar.start()
    return bar
