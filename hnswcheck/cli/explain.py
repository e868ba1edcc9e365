"""``hnswcheck explain`` and ``hnswcheck schema``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hnswcheck.cli.help_page import epilog
from hnswcheck.cli.terminal import emit
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
        emit("".join(f"{k.severity:8} {k.id:28} {k.title}\n" for k in kinds))
        return
    if finding not in REGISTRY:
        raise UsageError(f"there is no finding {finding!r}; 'hnswcheck explain' lists all")
    emit("".join(f"{line}\n" for line in _explained(REGISTRY[finding])))


def _explained(kind: Kind) -> list[str]:
    decides = "  (no verdict is possible)" if kind.undecides else ""
    return [
        f"{kind.id}: {kind.title}",
        f"severity: {kind.severity}{decides}",
        f"group:    {kind.group}",
        f"Chroma:   {kind.consequence}",
        f"Do:       {kind.remedy}",
    ]


def schema() -> None:
    """Print the JSON Schema of 'audit --format json'."""
    from hnswcheck.report import json_schema

    emit(json_schema())
