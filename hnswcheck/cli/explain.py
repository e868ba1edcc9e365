"""``hnswcheck explain`` and ``hnswcheck schema``."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from hnswcheck.cli.help_page import epilog
from hnswcheck.cli.terminal import WIDTH, emit
from hnswcheck.errors import UsageError

if TYPE_CHECKING:
    from hnswcheck.kinds import Kind


EPILOG = epilog(("explain", "explain records-missing"), {0: "done"})
SCHEMA_EPILOG = epilog(("schema > report.schema.json",), {0: "done"})


def explain(
    finding: Annotated[
        str | None,
        typer.Argument(metavar="FINDING", help="The id of a finding; without it, list all."),
    ] = None,
) -> None:
    """Explain a finding: what Chroma does, and what to do."""
    from hnswcheck.findings import REGISTRY

    if finding is None:
        kinds = REGISTRY.values()
        emit("".join(map(_listed, kinds)))
        return
    if finding not in REGISTRY:
        raise UsageError(f"there is no finding {finding!r}; 'hnswcheck explain' lists all")
    emit("".join(map(_hanging, *zip(*_explained(REGISTRY[finding]), strict=True))))


def _listed(kind: Kind) -> str:
    return _hanging(f"{kind.severity:8} {kind.id:28} ", kind.title)


def _explained(kind: Kind) -> list[tuple[str, str]]:
    """What each line begins with, and what it says."""
    decides = "  (no verdict is possible)" if kind.undecides else ""
    return [
        (f"{kind.id}: ", kind.title),
        ("severity: ", f"{kind.severity}{decides}"),
        ("group:    ", kind.group),
        ("Chroma:   ", kind.consequence),
        *([("in 0.x:   ", kind.in_python)] if kind.in_python else []),
        ("Do:       ", kind.remedy),
    ]


def _hanging(begin: str, text: str) -> str:
    """A line of 80 columns, and more of them below its text."""
    lines = wrap(text, WIDTH, initial_indent=begin, subsequent_indent=" " * min(len(begin), 38))
    return "".join(f"{line}\n" for line in lines)


def schema() -> None:
    """Print the JSON Schema of 'audit --format json'."""
    from hnswcheck.report import json_schema

    emit(json_schema())
