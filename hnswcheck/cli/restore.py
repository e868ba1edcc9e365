"""``hnswcheck restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hnswcheck.cli.help_page import epilog
from hnswcheck.cli.options import DryRun, Quiet, StorePath, Wait
from hnswcheck.cli.progress import shown
from hnswcheck.cli.terminal import complain, show

EPILOG = epilog(
    (
        "restore ./chroma",
        "restore ./chroma --quarantine NAME --dry-run",
        "restore ./chroma --quarantine NAME",
    ),
    {
        0: "done",
        1: "refused, because it would lose what was written since",
        3: "it could not be done, and nothing was changed",
    },
)


def restore(
    path: StorePath,
    quarantine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What to put back; without it, list what there is."),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = 0.0,
    quiet: Quiet = False,
) -> None:
    """Put back what a quarantine or a repair moved, or list it.

    A restore is refused if records that were written since would no longer be searchable.
    """
    from hnswcheck.changes import restore as restoring
    from hnswcheck.changes.journal import is_unfinished
    from hnswcheck.cli import render_actions as actions

    if quarantine is None:
        found, problems = restoring.survey(path)
        show(actions.listing(found, is_unfinished(path)))
        for problem in problems:
            complain(problem)
        return
    with shown(not quiet) as progress:
        named = Path(quarantine)  # completion gives a path
        name = named.name if named.parent in (Path(), path) else quarantine
        result = restoring.restore(path, name, dry_run=dry_run, wait=wait, progress=progress)
    show(actions.restored(result))
    raise typer.Exit(1 if result.lost_writes or result.lost_deletes else 0)
