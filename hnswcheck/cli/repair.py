"""``hnswcheck repair`` and ``hnswcheck salvage``."""

from __future__ import annotations

import importlib
import json
import re
import sys
from contextlib import redirect_stdout
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from hnswcheck.cli.change import Quiet, StorePath, Wait, Yes
from hnswcheck.cli.progress import shown
from hnswcheck.cli.terminal import complain, emit, is_terminal, show
from hnswcheck.errors import RepairRefused, UsageError

if TYPE_CHECKING:
    from hnswcheck.repairing.embedder import Embedding

EXAMPLES = """
Examples:

  hnswcheck repair ./chroma --plan

  hnswcheck repair ./chroma --collection docs

  hnswcheck repair ./chroma --accept unconfirmed --reembed

  hnswcheck repair ./chroma --embed-with mymodule:embed --batch-size 64

  hnswcheck repair ./chroma --leave-unindexed --yes

  hnswcheck repair ./chroma --accept unconfirmed --drop-records

Exit codes: 0 the store is consistent; 1 it is not, or nothing was changed because records have no
proven vector; 2 wrong use; 3 it could not be done, and nothing was changed; 130 interrupted.
"""

SALVAGE_EXAMPLES = """
Examples:

  hnswcheck salvage ./chroma --collection docs -o docs

  hnswcheck salvage ./chroma --collection docs -o docs.parquet

Reasons of the grades, by their numbers in FILE.npz and their names in FILE.jsonl:
"""

FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class SalvageCommand(TyperCommand):
    """Its help ends with the legend of all reasons, which is loaded only for that."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from hnswcheck.salvaging.reason import Reason

        legend = [f"  {one.value:2} {one.slug}: {one.sentence}" for one in reversed(Reason)]
        self.epilog = "\n\n".join([SALVAGE_EXAMPLES.rstrip(), *legend])
        super().format_epilog(ctx, formatter)


def repair(
    path: StorePath,
    collection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this collection (name or id); repeatable."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be done, and why.")
    ] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GRADE",
            help="Take vectors of this grade, too: inferred, outdated, suspect, unconfirmed;"
            " repeatable.",
        ),
    ] = None,
    reembed: Annotated[
        bool,
        typer.Option(
            "--reembed",
            help="Embed documents whose record has no acceptable vector, with the collection's own"
            " embedding function. Needs chromadb 1.0 or newer.",
        ),
    ] = False,
    embed_with: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="The same with this function, from a list of texts to vectors; or with this"
            " embedding function class, for a collection that keeps its settings.",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Documents that are embedded at a time.")
    ] = 256,
    leave_unindexed: Annotated[
        bool,
        typer.Option(
            "--leave-unindexed", help="Leave records without an acceptable vector out of the index."
        ),
    ] = False,
    drop_records: Annotated[
        bool,
        typer.Option(
            "--drop-records",
            help="Delete records without an acceptable vector; a file in PATH has them then.",
        ),
    ] = False,
    verify: Annotated[
        str | None,
        typer.Option(
            metavar="[none|audit|chroma]",
            help="What must be content with a new index, else the old one comes back: an audit, or"
            " also Chroma, on a copy (the default, if it is installed).",
            show_default=False,
        ),
    ] = None,
    machine: Annotated[
        bool, typer.Option("--json", help="Print source, grade and reason of every record as JSON.")
    ] = False,
    yes: Yes = False,
    wait: Wait = 0.0,
    quiet: Quiet = False,
) -> None:
    """Make damaged collections whole from every vector that still exists.

    Finds for every record the best source of its vector and proves that it is the record's own;
    builds a new index, or mends a copy of the old one where that is enough, and puts it in the
    place of the damaged one, which is kept: restore undoes the repair. Building needs hnswlib,
    which the extra "repair" of hnswcheck installs.
    """
    from hnswcheck.changes.journal import is_unfinished
    from hnswcheck.cli import render_actions as actions
    from hnswcheck.repairing import repair as repairing
    from hnswcheck.repairing.choices import Choices

    embedding = _embedding(reembed, embed_with, batch_size)
    choices = Choices.of(accept or (), leave_unindexed, embedding, drop_records)
    with shown(not quiet) as progress:
        made = repairing.plan_repair(
            path, collection, choices, dry_run=plan, wait=wait, verify=verify, progress=progress
        )
    report = made.report
    unfinished = is_unfinished(path)
    if not plan and report.segments and not report.refused:
        show(actions.repair_plan(report, unfinished), aside=machine)
        if yes or _agreed():
            # What an embedding function prints is no part of the answer.
            with shown(not quiet) as progress, redirect_stdout(sys.stderr):
                report = repairing.carry_out(made, choices, wait, progress)
            show(actions.repaired(report), aside=machine)
    else:
        show(actions.repair_plan(report, unfinished), aside=machine)
    if machine:
        emit(json.dumps(report.to_dict(), indent=2) + "\n")
    if report.refused and not plan:
        raise RepairRefused(f"{path}: nothing was changed; choose one of the options above")
    last = report.after or report.before
    raise typer.Exit(last.exit_code())


def salvage(
    path: StorePath,
    collection: Annotated[
        str, typer.Option(metavar="NAME", help="The collection (name or id).", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Writes FILE.npz and FILE.jsonl; or one file, if it ends with .parquet.",
            show_default=False,
        ),
    ],
    quiet: Quiet = False,
) -> None:
    """Export what is left of a collection: ids, vectors, grades, documents and metadata.

    Reads only. FILE.npz holds "vectors" (NaN where there is none), "grades" (5 proven, 4
    inferred, 3 unconfirmed, 2 outdated, 1 suspect, 0 lost) and "reasons" (see below), FILE.jsonl
    the rest in the same order. FILE.parquet holds all of it and needs the extra "parquet" of
    hnswcheck.
    """
    from hnswcheck.cli import render_actions as actions
    from hnswcheck.salvaging import export as exporting

    with shown(not quiet) as progress:
        made = exporting.export(path, collection, output, progress)
    show(actions.exported(made))


def _agreed() -> bool:
    if not is_terminal(sys.stdin):
        raise UsageError(
            "nothing was changed: stdin is not a terminal, so nobody can be asked; use --yes or"
            " --plan"
        )
    return typer.confirm("Repair?", err=True)


def _embedding(own: bool, name: str | None, batch: int) -> Embedding | None:
    """The collection's own function, or what ``module:function`` names.

    The module is found from the current directory, too.
    """
    from hnswcheck.repairing.embedder import OWN, Embedding, in_short

    if own and name is not None:
        raise UsageError("--reembed and --embed-with exclude each other: choose one")
    if name is None:
        return Embedding.of(OWN, batch, tell=complain) if own else None
    if not FUNCTION.fullmatch(name):
        raise UsageError(f"--embed-with {name}: this is not of the form MODULE:FUNCTION")
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = attrgetter(function)(importlib.import_module(module))
    except Exception as error:
        raise UsageError(f"--embed-with {name}: {in_short(error)}") from error
    return Embedding.of(found, batch, name, complain)
