"""What an action does to a store, for a person."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from rich.text import Text

from hnswcheck.changes.quarantine import (
    LINKED,
    NO_FOLDER,
    NO_GAIN,
    SQLITE_DAMAGED,
    WOULD_LOSE,
    Fate,
    QuarantineResult,
)
from hnswcheck.changes.restore import RestoreResult
from hnswcheck.cli.layout import Line, foreign, table, wrapped
from hnswcheck.cli.render_report import STATUS_STYLE
from hnswcheck.cli.terminal import visible
from hnswcheck.repairing.repair import RepairReport
from hnswcheck.repairing.segment_plan import SegmentPlan, SegmentRefused, SegmentRepaired
from hnswcheck.report import CollectionInfo
from hnswcheck.salvaging.export import SalvageResult
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.reason import Reason
from hnswcheck.store.manifest import Manifest

REPAIR = "Better run hnswcheck repair, which keeps them. --accept-loss moves the segment anyway."

#: What a person can choose where records have no proven vector.
CHOICES = (
    ("--accept GRADE", "use the vectors of this grade, too"),
    ("--reembed", "embed their documents with the collection's own function"),
    ("--embed-with MODULE:FUNCTION", "embed their documents with this function"),
    ("--leave-unindexed", "leave the records out of the index"),
    ("--drop-records", "delete the records, after writing them to a file"),
)
#: How a new index was verified.
VERIFIED = {
    "none": "not verified: its vectors were not audited, and Chroma was not asked",
    "audit": "verified by an audit with its vectors",
    "chroma": "verified by an audit with its vectors, and by Chroma {version} on a copy",
}


def plan(result: QuarantineResult, accept_loss: bool, unfinished: bool) -> Iterator[Text]:
    """What a quarantine would do, a few lines per damaged segment."""
    yield from _unfinished(unfinished)
    yield from _finished(result.finished)
    store = result.report.stores[0]
    undecided = sum(segment.status == "undecided" for segment in store.segments)
    if undecided:
        yield Text(
            f"collections that could not be judged, and stay where they are: {undecided}", "yellow"
        )
    if not result.segments:
        yield Text(f"nothing to quarantine in {visible(store.path)}")
    for fate in result.segments:
        yield from _head(fate.collection, fate.status, fate.findings)
        yield Text(f"  segment {fate.segment}", "dim")
        yield from wrapped(_cost(fate), 2, 4)
        lossy = fate.kept == WOULD_LOSE
        if lossy and not accept_loss:
            lost = fate.after_repair + (fate.lost or 0)
            yield from _warning(f"not moved: {lost:,} {WOULD_LOSE}. {REPAIR}")
        elif fate.kept in (NO_FOLDER, LINKED, NO_GAIN, SQLITE_DAMAGED):
            yield from _warning(f"not moved: {fate.kept}")


def _warning(text: str, indent: int = 2) -> Iterator[Text]:
    return wrapped(Text(text, "yellow"), indent, indent + 2)


def _cost(fate: Fate) -> str:
    match fate.lost:
        case None:
            lost = "; whether all of their vectors exist is unknown"
        case 0:
            lost = ""
        case number:
            lost = f"; {number:,} vectors exist nowhere"
    phantom = ""
    if fate.phantom:
        phantom = f"; Chroma then also finds {fate.phantom:,} ids that are no records"
    return (
        f"without its folder {fate.searchable:,} records stay searchable from the WAL, and"
        f" {fate.after_repair:,} only after a repair{lost}{phantom}"
    )


def _undo(path: Path, name: str) -> Text:
    """A command that can be pasted, whatever the path is called."""
    where = str(path.absolute())
    quoted = shlex.quote(where)
    if not where.isprintable() or not where.isascii():
        quoted = "".join(
            chr(b) if 32 <= b < 127 and b not in b"\\'" else f"\\x{b:02x}"
            for b in os.fsencode(where)
        )
        quoted = f"$'{quoted}'"
    return Text(f"  undo with: hnswcheck restore {quoted} --quarantine {name}")


def _where(collection: CollectionInfo) -> str:
    return f"{collection.tenant}/{collection.database}"


def moved(result: QuarantineResult) -> Iterator[Text]:
    """What a quarantine did."""
    for fate in result.segments:
        if fate.moved_to:
            yield from wrapped(f"moved {fate.segment} to {fate.moved_to}", 0, 2)
            yield _undo(result.path, fate.moved_to)


def restored(result: RestoreResult) -> Iterator[Text]:
    """What a restore did, or would do."""
    yield from _finished(result.finished)
    what = f"{result.quarantine} back as {result.segment}"
    if result.collection:
        what += f", of collection {foreign(result.collection)}"
    if result.done:
        yield from wrapped(f"put {what}", 0, 2)
        if result.displaced:
            yield from wrapped(f"the folder that was in its place is now {result.displaced}", 2, 4)
            yield _undo(result.path, result.displaced)
    elif result.lost_writes or result.lost_deletes:
        yield from _warning(
            f"would be refused: {result.lost_writes:,} records written since, and"
            f" {result.lost_deletes:,} deleted since, are only in the folder that is there now",
            0,
        )
    else:
        yield from wrapped(f"would put {what}", 0, 2)


def repair_plan(report: RepairReport, unfinished: bool) -> Iterator[Line]:
    """What a repair would do, a few lines per damaged collection."""
    yield from _unfinished(unfinished)
    yield from _finished(report.finished)
    if not report.segments:
        yield Text(f"nothing to repair in {visible(str(report.path))}")
    for segment in report.segments:
        yield from _head(segment.collection, segment.status, segment.findings)
        yield Text(f"  segment {segment.segment}", "dim")
        yield _reasons(segment.reasons, 2)
        match segment:
            case SegmentRefused():
                yield from _warning(f"not repaired: {foreign(segment.reason)}")
                if segment.offers_choices:
                    yield Text("  choose what becomes of records without a proven vector:")
                    yield table(CHOICES, ("left", "left"), (0, 0), 4)
            case SegmentPlan():
                for step in segment.steps():
                    yield from wrapped(foreign(step), 2, 4)


def repaired(report: RepairReport) -> Iterator[Text]:
    """What a repair did."""
    path = visible(str(report.path))
    for segment in report.repaired:
        what = f"repaired {foreign(segment.collection.name)}, segment {segment.segment}"
        yield from wrapped(what, 0, 2)
        yield from _how_repaired(report.path, segment)
    if report.after:
        verdict = report.after.verdict
        yield Text.assemble((verdict, STATUS_STYLE[verdict]), f": {path}")


def _how_repaired(path: Path, segment: SegmentRepaired) -> Iterator[Text]:
    """Where the old folder and the deleted records are, and how the new index was verified."""
    if segment.exported:
        yield Text(f"  the deleted records are in {visible(segment.exported)}")
    chroma = segment.tried_by
    version = foreign(chroma.version) if chroma else ""
    yield from wrapped(VERIFIED[segment.verified].format(version=version), 2, 4)
    if chroma and not chroma.is_of_line:
        yield from _warning(
            f"Chroma {version} is of another line than the Chroma that wrote the store: name the"
            " Python of that one with --chroma-python"
        )
    if segment.not_asked:
        yield from _warning(f"Chroma was not asked: {foreign(segment.not_asked)}")
    if segment.replaced and not segment.exported:  # no restore brings deleted records back
        yield _undo(path, segment.replaced)


def exported(made: SalvageResult) -> Iterator[Line]:
    """What an export wrote."""
    yield _reasons(made.reasons, 0)
    files = dict.fromkeys((made.vectors, made.lines))
    yield Text(f"written: {', '.join(visible(str(file)) for file in files)}")


def _reasons(reasons: Mapping[Grade, Mapping[Reason, int]], indent: int) -> Line:
    """How many records have each grade, a row for each reason."""
    rows = [
        (f"{count:,}", grade.name.lower(), reason.sentence)
        for grade, of in reasons.items()
        for reason, count in of.items()
    ]
    return table(rows, ("right", "left", "left"), (0, 0, 0), indent)


def _head(collection: CollectionInfo, status: str, findings: Sequence[str]) -> Iterator[Text]:
    head = Text.assemble(
        (foreign(collection.name), "bold"),
        (f"  ({foreign(_where(collection))})", "dim"),
        "  ",
        (status, STATUS_STYLE[status]),
        f"  {', '.join(findings)}",
    )
    yield from wrapped(head, 0, 4)


def listing(found: Sequence[Manifest], unfinished: bool) -> Iterator[Text]:
    """What can be restored, a few lines each."""
    yield from _unfinished(unfinished)
    if not found:
        yield Text("hnswcheck has quarantined nothing here")
    for manifest in found:
        size = sum(file.size for file in manifest.files)
        why = ", ".join(manifest.why) or "moved to make room for a restored folder"
        when = datetime.fromisoformat(manifest.time)
        yield Text(manifest.folder, "bold")
        what = f"collection {foreign(manifest.collection['name'])}, {size:,} bytes"
        yield from wrapped(what, 2, 4)
        yield from wrapped(f"{when:%Y-%m-%d %H:%M:%S} UTC: {foreign(why)}", 2, 4)


def _unfinished(unfinished: bool) -> Iterator[Text]:
    if unfinished:
        yield from wrapped(
            "An earlier action was stopped half way. The next action that is not a dry run first"
            " finishes it or takes it back.",
            0,
        )


def _finished(lines: Sequence[str]) -> Iterator[Text]:
    for line in lines:
        yield from _warning(f"{foreign(line)}, which had been stopped", 0)
