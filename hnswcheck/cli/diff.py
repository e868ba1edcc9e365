"""``hnswcheck diff``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hnswcheck.cli.help_page import epilog
from hnswcheck.cli.options import Format
from hnswcheck.cli.terminal import emit, visible
from hnswcheck.errors import UsageError
from hnswcheck.formats.text import path_text

if TYPE_CHECKING:
    from hnswcheck.comparison import Comparison, FindingChange, StoreChange
    from hnswcheck.report import Report

EPILOG = epilog(
    (
        "audit ./chroma --format json -o monday.json",
        "diff monday.json tuesday.json",
        "diff monday.json tuesday.json --format json",
    ),
    {
        0: "nothing got worse",
        1: "something got worse: an error or warning is new, affects more than before or was less"
        " severe before, or the status of a collection or the verdict of a store fell",
    },
)


def diff(
    old: Annotated[
        Path,
        typer.Argument(
            readable=False,
            metavar="OLD",
            help="The earlier report, written by 'audit --format json'.",
            show_default=False,
        ),
    ],
    new: Annotated[
        Path,
        typer.Argument(readable=False, metavar="NEW", help="The later report.", show_default=False),
    ],
    format: Annotated[
        Format, typer.Option(help="Write text for people or JSON for programs.")
    ] = Format.TEXT,
) -> None:
    """Compare two reports and say what got worse."""
    from hnswcheck import comparison

    found = comparison.diff(_read(old), _read(new))
    if format is Format.JSON:
        emit(found.to_json() + "\n")
    else:
        emit("".join(f"{line}\n" for line in _lines(found)))
    raise typer.Exit(1 if found.is_worse else 0)


def _read(path: Path) -> Report:
    from hnswcheck.report import Report

    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        says = error.strerror if isinstance(error, OSError) else None
        raise UsageError(f"{path_text(path)}: {says or error}") from error
    try:
        return Report.from_json(content)
    except UsageError as error:
        raise error.within(path_text(path)) from error


def _lines(found: Comparison) -> Iterator[str]:
    if not found.stores:
        yield "nothing changed"
        return
    for store in found.stores:
        yield from _store_lines(store)
    yield "something got worse" if found.is_worse else "nothing got worse"


def _store_lines(store: StoreChange) -> Iterator[str]:
    yield f"{visible(store.path)}: {_from_to(store.before, store.after)}"
    before, after = store.levels
    if before and after and before != after:
        yield f"  level: {_from_to(before, after)}; a deeper audit also finds what is old"
    yield from _finding_lines(store.findings, "  ")
    for each in store.collections:
        c = each.collection
        name = visible(f"{c.tenant}/{c.database}/{c.name}")
        yield f"  collection {name}: {_from_to(each.before, each.after)}"
        yield from _finding_lines(each.findings, "    ")


def _from_to(before: str | None, after: str | None) -> str:
    if before is None:
        return f"new, {after}"
    if after is None:
        return f"gone, was {before}"
    return after if before == after else f"{before} -> {after}"


def _finding_lines(findings: Sequence[FindingChange], indent: str) -> Iterator[str]:
    from hnswcheck.cli.layout import wrapped

    for one in findings:
        before, after = one.before, one.after
        tally = after or before
        assert tally is not None
        counts = [f"{each.count:,}" if each else None for each in (before, after)]
        severity: str = tally.severity
        if before and after:
            severity = _from_to(before.severity, after.severity)
        worse = "  worse" if one.is_worse else ""
        yield f"{indent}{severity}  {one.id}  {_from_to(*counts)}{worse}"
        for sign, ids in _sample_changes(one):
            line = f"{sign} {', '.join(map(visible, ids))}"
            yield from (each.plain for each in wrapped(line, len(indent) + 2, len(indent) + 4))


def _sample_changes(one: FindingChange) -> Iterator[tuple[str, list[str]]]:
    old = one.before.sample if one.before else ()
    new = one.after.sample if one.after else ()
    for sign, some, others in (("+", new, old), ("-", old, new)):
        if ids := [id for id in some if id not in others]:
            yield sign, ids
