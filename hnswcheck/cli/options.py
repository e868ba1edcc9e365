"""The options and arguments of the commands, each with its help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hnswcheck.cli.choosing import LEVELS


class Format(StrEnum):
    """What a report is written as."""

    TEXT = "text"
    JSON = "json"


class FailOn(StrEnum):
    """From which severity on findings fail."""

    ERROR = "error"
    WARNING = "warning"


StorePath = Annotated[
    Path,
    typer.Argument(
        readable=False, metavar="PATH", help="The persist directory of Chroma.", show_default=False
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=0, help="Seconds to wait for other processes to close the store."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the store is changed.")]
AcceptLoss = Annotated[
    bool,
    typer.Option(
        "--accept-loss",
        help="Also move segments whose records are then searchable only after a repair.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
StorePaths = Annotated[
    list[Path],
    typer.Argument(
        readable=False,
        metavar="PATH",
        help="The persist directories of Chroma.",
        show_default=False,
    ),
]
AuditLevel = Annotated[
    str,
    typer.Option(
        metavar=LEVELS,
        help="What to read: probe reads counts only; standard every id, label and link; deep"
        " also all vectors and all of sqlite.",
    ),
]
AuditCollections = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Audit only this collection (name or id); repeatable."),
]
ForRelease = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="VERSION",
        help="Judge for this release of Chroma: can it open the store, and what would it do?",
        show_default=False,
    ),
]
ReportFormat = Annotated[Format, typer.Option(help="The format of the report.")]
FailingSeverity = Annotated[
    FailOn, typer.Option(help="The least severity that makes the exit code 1.")
]
Severities = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FINDING=LEVEL",
        help="Give a finding another severity for this audit; repeatable.",
    ),
]
AllIds = Annotated[
    bool, typer.Option("--all-ids", help="Name every affected id instead of the first 20.")
]
QuietVerdict = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only the verdict, and no progress.")
]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Write the report to FILE instead of stdout."
    ),
]
ThenQuarantine = Annotated[
    bool,
    typer.Option(
        "--quarantine",
        help="Then move damaged segments as 'hnswcheck quarantine' does; --yes, --accept-loss"
        " and --wait apply to that.",
    ),
]
RepairCollections = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Repair only this collection (name or id); repeatable."),
]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Only show what would be done, and why.")]
AcceptedGrades = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GRADE",
        help="Also use vectors of this grade: inferred, outdated, suspect, unconfirmed;"
        " repeatable.",
    ),
]
Reembed = Annotated[
    bool,
    typer.Option(
        "--reembed",
        help="Embed documents whose record has no acceptable vector, with the collection's own"
        " embedding function. Needs chromadb 1.0 or newer.",
    ),
]
EmbedWith = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="The same with this function, which turns a list of texts into vectors; or with"
        " this embedding function class, if Chroma keeps its settings. Make sure that it"
        " produced the existing vectors; hnswcheck cannot tell.",
    ),
]
BatchSize = Annotated[
    int, typer.Option(metavar="N", min=1, help="Embed at most N documents at a time.")
]
LeaveUnindexed = Annotated[
    bool,
    typer.Option(
        "--leave-unindexed", help="Leave records without an acceptable vector out of the index."
    ),
]
DropRecords = Annotated[
    bool,
    typer.Option(
        "--drop-records",
        help="Delete records without an acceptable vector, after writing them to a file in PATH.",
    ),
]
VerifiedBy = Annotated[
    str | None,
    typer.Option(
        metavar="[none|audit|chroma]",
        help="Who checks a new index before it stays: an audit of its vectors; or also Chroma,"
        " on a copy (the default, if chromadb is installed). An index that fails is taken"
        " back.",
        show_default=False,
    ),
]
ChromaPython = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="The Python whose chromadb tries a new index, as that of the application which uses"
        " the store. Without it, the Python of hnswcheck.",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print source, grade and reason of every record as JSON.")
]
