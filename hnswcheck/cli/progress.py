"""A progress bar on stderr, for a person who waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from hnswcheck.cli.render_report import visible
from hnswcheck.progress import Progress as Listener
from hnswcheck.progress import silent

#: Nothing is shown for what takes less.
DELAY_SECONDS = 1.0


@contextmanager
def shown(enabled: bool) -> Iterator[Listener]:
    """A listener for :func:`hnswcheck.audit`; silent unless stderr is a terminal."""
    console = Console(stderr=True)
    if not enabled or not console.is_terminal:
        yield silent
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    started = time.monotonic()
    task: TaskID | None = None

    def listen(done: int, total: int, what: str) -> None:
        nonlocal task
        if task is None:
            if time.monotonic() - started < DELAY_SECONDS:
                return
            bar.start()
            task = bar.add_task("", total=total)
        bar.update(task, completed=done, total=total, description=visible(what))

    try:
        yield listen
    finally:
        bar.stop()
