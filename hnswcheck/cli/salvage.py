"""``hnswcheck salvage``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from hnswcheck.cli.help_page import epilog, numbered
from hnswcheck.cli.options import Quiet, StorePath
from hnswcheck.cli.progress import shown
from hnswcheck.cli.terminal import show

EPILOG = epilog(
    (
        "salvage ./chroma --collection docs -o docs",
        "salvage ./chroma --collection docs -o docs.parquet",
    ),
    {
        0: "the files are written",
        1: "the collection cannot be exported",
        3: "it could not be done, and no file was written",
    },
)


class SalvageCommand(TyperCommand):
    """Its help ends with the legend of all reasons, which is loaded only for that."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, then the legend."""
        from hnswcheck.salvaging.reason import Reason

        title = "Reasons of the grades, by number in FILE.npz and by name in FILE.jsonl:"
        legend = [(one.value, f"{one.slug}: {one.sentence}") for one in reversed(Reason)]
        self.epilog = f"{EPILOG}\n\n{numbered(title, legend)}"
        super().format_epilog(ctx, formatter)


def salvage(
    path: StorePath,
    collection: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The collection to export (name or id).", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write FILE.npz and FILE.jsonl; or only FILE, if it ends with .parquet.",
            show_default=False,
        ),
    ],
    quiet: Quiet = False,
) -> None:
    """Export what is left of a collection, with its vectors.

    A salvage only reads the store. FILE.npz holds "vectors" (NaN where there is none), "grades"
    (5 proven, 4 inferred, 3 unconfirmed, 2 outdated, 1 suspect, 0 lost) and "reasons" (see below),
    FILE.jsonl the rest in the same order. FILE.parquet holds all of it; it needs pyarrow:
    pip install 'hnswcheck[parquet]'.
    """
    from hnswcheck.cli import render_actions as actions
    from hnswcheck.salvaging import export

    with shown(not quiet) as progress:
        made = export.salvage(path, collection, output, progress)
    show(actions.exported(made))
