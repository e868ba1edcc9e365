"""``hnswcheck audit`` and ``hnswcheck demo``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hnswcheck.cli.choosing import level_named
from hnswcheck.cli.demo import unpacked_demo
from hnswcheck.cli.help_page import epilog
from hnswcheck.cli.options import (
    AcceptLoss,
    AllIds,
    AuditCollections,
    AuditLevel,
    FailingSeverity,
    FailOn,
    Format,
    ForRelease,
    QuietVerdict,
    ReportFile,
    ReportFormat,
    Severities,
    StorePaths,
    ThenQuarantine,
    Wait,
    Yes,
)
from hnswcheck.cli.progress import shown
from hnswcheck.cli.quarantine import Move, move_damaged
from hnswcheck.cli.terminal import complain, emit, is_terminal, page
from hnswcheck.errors import HnswcheckError, UsageError

if TYPE_CHECKING:
    from hnswcheck.kinds import Severity
    from hnswcheck.report import Level, Report, StoreReport


EPILOG = epilog(
    (
        "audit ./chroma",
        "audit ./chroma --collection docs --all-ids",
        "audit backup-*/ --fail-on warning --quiet",
        "audit ./chroma --format json -o report.json",
        "audit ./chroma --quarantine",
        "audit ./chroma --for 1.5.9",
    ),
    {
        0: "nothing was found at or above --fail-on",
        1: "findings at or above --fail-on, even if --quarantine then moved the damage",
        3: "the store could not be judged",
    },
)
DEMO_EPILOG = epilog(("demo",), {0: "the demo was shown", 3: "it could not be unpacked or shown"})


def audit(
    paths: StorePaths,
    level: AuditLevel = "standard",
    collection: AuditCollections = None,
    for_release: ForRelease = None,
    format: ReportFormat = Format.TEXT,
    fail_on: FailingSeverity = (FailOn.ERROR),
    severity: Severities = None,
    all_ids: AllIds = False,
    quiet: QuietVerdict = False,
    output: ReportFile = None,
    quarantine: ThenQuarantine = False,
    yes: Yes = False,
    accept_loss: AcceptLoss = False,
    wait: Wait = 0.0,
) -> None:
    """Check whether the vector index and the records agree.

    An audit judges every collection. It writes, creates and changes nothing in the persist
    directory (unless --quarantine is given), and does not disturb a running Chroma.
    """
    read = level_named(level)
    severities = _severities(severity or [])
    if quarantine and read == "probe":
        raise UsageError(
            "--quarantine needs level standard or deep: counts alone do not show what it costs"
        )
    if quarantine and for_release is not None:
        raise UsageError("--quarantine and --for exclude each other: choose one")
    if (yes or accept_loss or wait) and not quarantine:
        raise UsageError("--yes, --accept-loss and --wait need --quarantine")
    if output is not None:
        _keep_out(output, paths)
        _try_to_write(output)  # what cannot be written must be known before hours of reading
    report, wrong_use = _audited(paths, read, collection, all_ids, for_release, quiet)
    report = report.with_severities(severities)
    deliver(report, format, quiet, output)
    if quarantine:
        move = Move(
            level=read,
            yes=yes,
            accept_loss=accept_loss,
            wait=wait,
            quiet=quiet,
            aside=format is Format.JSON,
        )
        wrong_use |= _moved(paths, report, collection, move)
    code = report.exit_code(fail_on.value)
    raise typer.Exit(UsageError.exit_code if wrong_use and code != 1 else code)


def _audited(
    paths: Sequence[Path],
    level: Level,
    collections: list[str] | None,
    all_ids: bool,
    release: str | None,
    quiet: bool,
) -> tuple[Report, bool]:
    """The report on all stores, and whether a path is none."""
    from hnswcheck.auditing.api import audit
    from hnswcheck.auditing.runner import report_of_failure
    from hnswcheck.report import Report

    stores: list[StoreReport] = []
    wrong_use = False
    for path in paths:
        try:
            with shown(not quiet) as progress:
                report = audit(
                    path,
                    level,
                    collections,
                    all_ids=all_ids,
                    for_release=release,
                    progress=progress,
                )
            stores += report.stores
        except HnswcheckError as error:
            if not error.finding:
                raise
            complain(str(error))
            stores.append(report_of_failure(path, level, error))
            wrong_use |= isinstance(error, UsageError)
    return Report(tuple(stores)), wrong_use


def _moved(
    paths: Sequence[Path], report: Report, collections: list[str] | None, move: Move
) -> bool:
    """Move what is damaged in each damaged store; whether that was wrong use of one of them."""
    wrong_use = False
    for path, store in zip(paths, report.stores, strict=True):
        if store.verdict != "damaged":
            continue
        try:
            move_damaged(path, collections, None, move)
        except HnswcheckError as error:
            complain(str(error))
            wrong_use |= isinstance(error, UsageError)
    return wrong_use


def _keep_out(output: Path, stores: Sequence[Path]) -> None:
    place = output.resolve()
    for store in stores:
        if place.is_relative_to(store.resolve()):
            raise UsageError(
                f"{output} is inside the store, where an audit writes nothing: choose another place"
            )


def _severities(overrides: Sequence[str]) -> dict[str, Severity]:
    from hnswcheck.findings import REGISTRY
    from hnswcheck.kinds import SEVERITIES

    chosen: dict[str, Severity] = {}
    for override in overrides:
        finding, _, level = override.partition("=")
        if finding not in REGISTRY:
            raise UsageError(
                f"--severity: there is no finding {finding!r}; 'hnswcheck explain' lists all"
            )
        match = [s for s in SEVERITIES if s == level]
        if not match:
            raise UsageError(f"--severity: {level!r} is not one of {', '.join(SEVERITIES)}")
        chosen[finding] = match[0]
    return chosen


def deliver(report: Report, format: Format, quiet: bool, output: Path | None) -> None:
    """Write a report to stdout or to a file."""
    if output is None:
        emit(_rendered(report, format, quiet, colours=is_terminal(sys.stdout)))
        return
    with _writing(output):
        output.write_text(_rendered(report, format, quiet, colours=False), encoding="utf-8")


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{output}: {error.strerror or error}") from error


def _try_to_write(output: Path) -> None:
    with _writing(output):
        new = not output.exists()
        output.open("a").close()
        if new:
            output.unlink()


def _rendered(report: Report, format: Format, quiet: bool, colours: bool) -> str:
    if format is Format.JSON:
        return report.to_json() + "\n"
    from hnswcheck.cli.render_report import lines

    return page(lines(report, quiet), colours)


def demo() -> None:
    """Audit a small damaged store that comes with hnswcheck.

    The demo says what happened to the store, and how to read the report.
    """
    from hnswcheck.auditing.api import audit

    with unpacked_demo() as (store, about):
        emit(f"{about}\n")
        report = audit(store)
        deliver(report, Format.TEXT, False, None)
