"""``hnswcheck repair`` and ``hnswcheck salvage``."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hnswcheck.actions import export as exporting
from hnswcheck.actions import repair as repairing
from hnswcheck.actions.choices import ACCEPTABLE, Choices, Embed
from hnswcheck.commands.change import Quiet, StorePath, Wait, Yes
from hnswcheck.errors import RepairRefused, UsageError
from hnswcheck.output import actions
from hnswcheck.output.progress import shown
from hnswcheck.output.terminal import emit, is_terminal, show

EXAMPLES = """
Examples:

  hnswcheck repair ./chroma --plan

  hnswcheck repair ./chroma --collection docs

  hnswcheck repair ./chroma --accept unconfirmed --reembed mymodule:embed

  hnswcheck repair ./chroma --leave-unindexed --yes

Exit codes: 0 the store is consistent; 1 it is not, or nothing was changed because records have no
proven vector; 2 wrong use; 3 it could not be done, and nothing was changed; 130 interrupted.
"""

SALVAGE_EXAMPLES = """
Example:

  hnswcheck salvage ./chroma --collection docs -o docs
"""


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
            help=f"Take vectors of this grade, too: {', '.join(sorted(ACCEPTABLE))}; repeatable.",
        ),
    ] = None,
    reembed: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Embed documents again where no acceptable vector is; from texts to vectors.",
        ),
    ] = None,
    leave_unindexed: Annotated[
        bool, typer.Option("--leave-unindexed", help="Leave records without a vector as they are.")
    ] = False,
    machine: Annotated[
        bool, typer.Option("--json", help="Print source and grade of every record as JSON.")
    ] = False,
    yes: Yes = False,
    wait: Wait = 0.0,
    quiet: Quiet = False,
) -> None:
    """Make damaged collections whole from every vector that still exists.

    Finds for every record the best source of its vector and proves that it is the record's own;
    builds a new index and puts it in the place of the damaged one, which is kept: restore undoes
    the repair. Needs the extra: pip install 'hnswcheck[repair]'.
    """
    choices = Choices.of(accept or (), leave_unindexed, _function(reembed))
    with shown(not quiet):
        made = repairing.plan_repair(path, collection, choices, dry_run=plan, wait=wait)
    report = made.report
    if not plan and report.segments and not report.refused:
        show(actions.repair_plan(report), aside=machine)
        if yes or _agreed():
            with shown(not quiet) as progress:
                report = repairing.carry_out(made, choices, wait, progress)
            show(actions.repaired(report), aside=machine)
    else:
        show(actions.repair_plan(report), aside=machine)
    if machine:
        emit(json.dumps(report.to_dict(), indent=2) + "\n")
    if report.refused and not plan:
        raise RepairRefused(f"{path}: nothing was changed; see the choices above")
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
            help="Writes FILE.npz and FILE.jsonl.",
            show_default=False,
        ),
    ],
    quiet: Quiet = False,
) -> None:
    """Export what is left of a collection: ids, vectors, grades, documents and metadata.

    Reads only. FILE.npz holds "vectors" (NaN where there is none) and "grades" (5 proven, 4
    inferred, 3 unconfirmed, 2 outdated, 1 suspect, 0 lost), FILE.jsonl the rest in the same order.
    """
    with shown(not quiet) as progress:
        made = exporting.export(path, collection, output, progress)
    show(actions.exported(made))


def _agreed() -> bool:
    if not is_terminal(sys.stdin):
        raise UsageError("nothing was changed: there is nobody to ask; say --yes or --plan")
    return typer.confirm("Repair?", err=True)


def _function(name: str | None) -> Embed | None:
    """The function that ``module:function`` names, found from the current directory, too."""
    if name is None:
        return None
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Embed = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--reembed {name}: {error}") from error
    except Exception as error:  # it is the user's own code
        raise UsageError(f"--reembed {name}: {error!r}") from error
    return found
