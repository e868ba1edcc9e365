"""``hnswcheck repair``."""

from __future__ import annotations

import importlib
import json
import re
import sys
from contextlib import redirect_stdout
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hnswcheck.cli.help_page import epilog
from hnswcheck.cli.options import (
    AcceptedGrades,
    AsJson,
    BatchSize,
    ChromaPython,
    DropRecords,
    EmbedWith,
    LeaveUnindexed,
    PlanOnly,
    Quiet,
    Reembed,
    RepairCollections,
    StorePath,
    VerifiedBy,
    Wait,
    Yes,
)
from hnswcheck.cli.progress import shown
from hnswcheck.cli.terminal import complain, emit, is_terminal, show
from hnswcheck.errors import RepairRefused, UsageError

if TYPE_CHECKING:
    from hnswcheck.repairing.embedder import Embedding

EPILOG = epilog(
    (
        "repair ./chroma --plan",
        "repair ./chroma --collection docs",
        "repair ./chroma --accept unconfirmed --reembed",
        "repair ./chroma --embed-with mymodule:embed --batch-size 64",
        "repair ./chroma --leave-unindexed --yes",
        "repair ./chroma --chroma-python ./app/.venv/bin/python",
        "repair ./chroma --accept unconfirmed --drop-records",
    ),
    {
        0: "the store is consistent",
        1: "the store is not consistent; or nothing was changed, because records have no proven"
        " vector",
        3: "it could not be done, and nothing was changed",
    },
)
FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def repair(
    path: StorePath,
    collection: RepairCollections = None,
    plan: PlanOnly = False,
    accept: AcceptedGrades = None,
    reembed: Reembed = False,
    embed_with: EmbedWith = None,
    batch_size: BatchSize = 256,
    leave_unindexed: LeaveUnindexed = False,
    drop_records: DropRecords = False,
    verify: VerifiedBy = None,
    chroma_python: ChromaPython = None,
    machine: AsJson = False,
    yes: Yes = False,
    wait: Wait = 0.0,
    quiet: Quiet = False,
) -> None:
    """Make damaged collections whole again.

    A repair finds the best source of every record's vector and proves that the vector is the
    record's own. It builds a new index, or patches a copy of the old one if that is enough, and
    puts it in the place of the damaged one. It keeps the old index: restore undoes the repair.
    Vectors that were embedded before an interruption are kept in the user's cache directory.
    Building needs hnswlib: pip install 'hnswcheck[repair]'.
    """
    from hnswcheck.changes.journal import is_unfinished
    from hnswcheck.cli import render_actions as actions
    from hnswcheck.repairing import repair as repairing
    from hnswcheck.repairing.choices import Choices
    from hnswcheck.repairing.verification import wanted

    embedding = _embedding(reembed, embed_with, batch_size)
    choices = Choices.of(accept or (), leave_unindexed, embedding, drop_records)
    with shown(not quiet) as progress:
        made = repairing.plan_repair(
            path,
            collection,
            choices,
            dry_run=plan,
            wait=wait,
            wish=wanted(verify, chroma_python),
            progress=progress,
        )
    report = made.report
    show(actions.repair_plan(report, is_unfinished(path)), aside=machine)
    if not plan and report.segments and not report.refused and (yes or _agreed()):
        # What an embedding function prints is no part of the answer.
        with shown(not quiet) as progress, redirect_stdout(sys.stderr):
            report = repairing.carry_out(made, choices, wait, progress)
        show(actions.repaired(report), aside=machine)
    if machine:
        emit(json.dumps(report.to_dict(), indent=2) + "\n")
    if report.refused and not plan:
        can_choose = any(one.offers_choices for one in report.refused)
        what = "choose one of the options above" if can_choose else "the reasons are above"
        raise RepairRefused(f"{path}: nothing was changed; {what}")
    raise typer.Exit((report.after or report.before).exit_code())


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
