"""The command line: options in, library call, exit code out."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console

from hnswcheck import __version__
from hnswcheck.apart import exit_when_told
from hnswcheck.audit import audit as run_audit
from hnswcheck.audit import failed
from hnswcheck.demo import unpacked_demo
from hnswcheck.disk.text import path_text
from hnswcheck.errors import HnswcheckError, OutputFailed, UsageError
from hnswcheck.findings import REGISTRY, SEVERITIES, Kind, Severity
from hnswcheck.output import text
from hnswcheck.output.progress import shown
from hnswcheck.report import Level, Report, StoreReport, json_schema

app = typer.Typer(
    help="The fsck for Chroma: says exactly whether vector index and records agree.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
#: typer brings its own click or uses the installed one; its usage errors share this base.
CliError: type[Exception] = typer.BadParameter.__bases__[0].__bases__[0]

INTERRUPTED = 130


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


class FailOn(StrEnum):
    ERROR = "error"
    WARNING = "warning"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hnswcheck {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


AUDIT_EXAMPLES = """
Examples:

  hnswcheck audit ./chroma

  hnswcheck audit ./chroma --collection docs --all-ids

  hnswcheck audit backup-*/ --fail-on warning --quiet

  hnswcheck audit ./chroma --format json -o report.json

Exit codes: 0 nothing at or above --fail-on; 1 findings; 2 wrong use; 3 could not be decided;
130 interrupted.
"""


@app.command(epilog=AUDIT_EXAMPLES)
def audit(
    paths: Annotated[
        list[Path],
        typer.Argument(
            readable=False, metavar="PATH...", help="Persist directories.", show_default=False
        ),
    ],
    level: Annotated[
        Level,
        typer.Option(help="Counts only; or every id, label and link; or vectors and sqlite, too."),
    ] = Level.STANDARD,
    collection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this collection (name or id); repeatable."),
    ] = None,
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.TEXT,
    fail_on: Annotated[FailOn, typer.Option(help="Which findings make the exit code 1.")] = (
        FailOn.ERROR
    ),
    severity: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FINDING=LEVEL", help="Give a finding another severity here; repeatable."
        ),
    ] = None,
    all_ids: Annotated[
        bool, typer.Option("--all-ids", help="Name every affected id, not the first 20.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only the verdict, no progress.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead.")
    ] = None,
) -> None:
    """Say of every collection whether its vector index and its records agree.

    Reads only. Nothing in the directory is written, created or touched, and a running Chroma is
    not disturbed.
    """
    severities = _severities(severity or [])
    if output is not None:
        _keep_out(output, paths)
        _try_to_write(output)  # what cannot be written must be known before hours of reading
    stores: list[StoreReport] = []
    wrong_use = False
    for path in paths:
        try:
            with shown(not quiet) as progress:
                report = run_audit(path, level, collection, all_ids=all_ids, progress=progress)
            stores += report.stores
        except HnswcheckError as error:
            if not error.finding:
                raise
            complain(str(error))
            stores.append(failed(path, level, error))
            wrong_use |= isinstance(error, UsageError)
    report = Report(tuple(stores)).with_severities(severities)
    _deliver(report, format, quiet, output)
    code = report.exit_code(fail_on.value)
    raise typer.Exit(UsageError.exit_code if wrong_use and code != 1 else code)


def _keep_out(output: Path, stores: Sequence[Path]) -> None:
    place = output.resolve()
    for store in stores:
        if place.is_relative_to(store.resolve()):
            raise UsageError(f"{output}: not within the store, where nothing may be written")


def _severities(overrides: Sequence[str]) -> dict[str, Severity]:
    chosen: dict[str, Severity] = {}
    for override in overrides:
        finding, _, level = override.partition("=")
        if finding not in REGISTRY:
            raise UsageError(f"--severity: no finding {finding!r}; 'hnswcheck explain' lists them")
        match = [s for s in SEVERITIES if s == level]
        if not match:
            raise UsageError(f"--severity: {level!r} is none of {', '.join(SEVERITIES)}")
        chosen[finding] = match[0]
    return chosen


def _deliver(report: Report, format: Format, quiet: bool, output: Path | None) -> None:
    if output is None:
        terminal = sys.stdout is not None and sys.stdout.isatty()
        emit(_rendered(report, format, quiet, colours=terminal))
    else:
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
    page = io.StringIO()
    console = Console(file=page, force_terminal=colours, highlight=False, markup=False, emoji=False)
    text.write(report, console, quiet)
    return page.getvalue()


def emit(page: str) -> None:
    """Write to stdout; a reader that has gone away changes nothing.

    Raises:
        OutputFailed: the page could not be written.
    """
    if sys.stdout is None:
        raise OutputFailed("stdout is closed")
    try:
        sys.stdout.write(page)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as error:
        _discard(sys.stdout)
        raise OutputFailed(f"stdout: {error.strerror or error}") from error


def _discard(stream: TextIO) -> None:
    """Send what is still buffered to nowhere, so that nothing fails at exit."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


@app.command(epilog="Examples:\n\n  hnswcheck explain\n\n  hnswcheck explain records-missing")
def explain(
    finding: Annotated[
        str | None, typer.Argument(metavar="FINDING", help="A finding's id; none lists all.")
    ] = None,
) -> None:
    """Explain a finding: what Chroma does with it, and what to do."""
    if finding is None:
        kinds = REGISTRY.values()
        emit("".join(f"{k.severity:8} {k.id:28} {k.title}\n" for k in kinds))
        return
    if finding not in REGISTRY:
        raise UsageError(f"no finding {finding!r}; 'hnswcheck explain' lists them")
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


@app.command(epilog="Example:\n\n  hnswcheck schema > report.schema.json")
def schema() -> None:
    """Print the JSON Schema of 'audit --format json'."""
    emit(json_schema())


@app.command(epilog="Example:\n\n  hnswcheck demo")
def demo() -> None:
    """Audit a damaged store that comes with the package, and show how to read the result."""
    with unpacked_demo() as (store, about):
        emit(f"{about}\n")
        report = run_audit(store)
        _deliver(report, Format.TEXT, False, None)


def complain(message: str) -> None:
    """One line on stderr."""
    line = text.visible(path_text(" ".join(message.split())))
    with suppress(OSError, AttributeError):  # stderr is closed or full: nobody listens
        sys.stderr.write(f"hnswcheck: {line}\n")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    exit_when_told()
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        code = typer.main.get_command(app).main(
            None if arguments is None else list(arguments), "hnswcheck", standalone_mode=False
        )
    except CliError as error:
        says = getattr(error, "format_message", lambda: "")()
        complain(f"{says or 'nothing to do'} (see hnswcheck --help)")
        return UsageError.exit_code
    except HnswcheckError as error:
        complain(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if os.environ.get("HNSWCHECK_TRACEBACK"):
            raise
        complain(
            f"internal error: {type(error).__name__}: {error}"
            " (please report it; HNSWCHECK_TRACEBACK=1 shows where)"
        )
        return HnswcheckError.exit_code
    if code == INTERRUPTED:  # newer typer returns this itself
        complain("interrupted")
    return code if isinstance(code, int) else 0
