"""``hnswcheck quarantine``, and what moves damage after an audit."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hnswcheck.cli.choosing import LEVELS, level_named
from hnswcheck.cli.help_page import epilog
from hnswcheck.cli.options import AcceptLoss, DryRun, Quiet, StorePath, Wait, Yes
from hnswcheck.cli.progress import shown
from hnswcheck.cli.terminal import is_terminal, show
from hnswcheck.errors import HnswcheckError, UsageError

if TYPE_CHECKING:
    from hnswcheck.report import Level

#: Nothing could be said of some segments.
UNDECIDED = HnswcheckError.exit_code

EPILOG = epilog(
    (
        "quarantine ./chroma --dry-run",
        "quarantine ./chroma --collection docs",
        "quarantine ./chroma --yes --wait 30",
    ),
    {
        0: "no damaged segment is left in place",
        1: "damaged segments are left in place",
        3: "it could not be done, and nothing was changed",
    },
)


def quarantine(
    path: StorePath,
    collection: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Quarantine only this collection (name or id); repeatable."
        ),
    ] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(metavar="UUID", help="Quarantine only this vector segment; repeatable."),
    ] = None,
    level: Annotated[
        str,
        typer.Option(metavar=LEVELS, help="The level of the audit before it: standard or deep."),
    ] = "standard",
    dry_run: DryRun = False,
    yes: Yes = False,
    accept_loss: AcceptLoss = False,
    wait: Wait = 0.0,
    quiet: Quiet = False,
) -> None:
    """Move damaged segments out of Chroma's way; restore undoes it.

    A quarantine audits the store first and moves only segments that are diverged or corrupt. It
    moves only segments whose records all stay searchable, because Chroma replays them from its
    WAL; --accept-loss moves the others, too. hnswcheck restore puts a segment back.
    """
    move = Move(
        level=level_named(level),
        dry_run=dry_run,
        yes=yes,
        accept_loss=accept_loss,
        wait=wait,
        quiet=quiet,
    )
    raise typer.Exit(move_damaged(path, collection, segment, move))


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """How a quarantine is to be done.

    Attributes:
        yes: without asking.
        accept_loss: also where records are searchable only after a repair, then.
        wait: seconds to wait for other processes.
        quiet: without progress.
        aside: shown on stderr.
    """

    level: Level
    dry_run: bool = False
    yes: bool = False
    accept_loss: bool = False
    wait: float = 0.0
    quiet: bool = False
    aside: bool = False


def move_damaged(
    path: Path, collections: list[str] | None, segments: list[str] | None, move: Move
) -> int:
    """Show the plan, ask, move, and say what was moved; the exit code."""
    from rich.text import Text

    from hnswcheck.changes import quarantine as quarantining
    from hnswcheck.changes.journal import is_unfinished
    from hnswcheck.cli import render_actions as actions

    with shown(not move.quiet) as progress:
        plan = quarantining.plan_quarantine(
            path,
            collections,
            segments,
            level=move.level,
            dry_run=move.dry_run,
            wait=move.wait,
            progress=progress,
        )
    result = plan.result
    show(actions.plan(result, move.accept_loss, is_unfinished(path)), move.aside)
    if plan.chosen(move.accept_loss) and not move.dry_run and (move.yes or _agreed()):
        with shown(not move.quiet) as progress:
            result = quarantining.carry_out(plan, move.accept_loss, move.wait, progress)
        show(actions.moved(result), move.aside)
    elif plan.chosen(move.accept_loss):
        show([Text("nothing was moved")], move.aside)
    if any(fate.kept for fate in result.segments):
        return 1
    return 0 if result.report.stores[0].complete else UNDECIDED


def _agreed() -> bool:
    if not is_terminal(sys.stdin):
        raise UsageError(
            "nothing was moved: stdin is not a terminal, so nobody can be asked; use --yes or"
            " --dry-run"
        )
    return typer.confirm("Move them?", err=True)
