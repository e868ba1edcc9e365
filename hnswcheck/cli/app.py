"""The command line: which commands there are, and how each of them ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from hnswcheck import __version__
from hnswcheck.cli import audit, diff, explain, quarantine, repair, restore, salvage
from hnswcheck.cli.terminal import complain
from hnswcheck.errors import HnswcheckError, UsageError
from hnswcheck.isolation import exit_when_told

app = typer.Typer(
    help="The fsck for Chroma: tells exactly whether vector index and records agree.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # a help page of plain text needs no rich, and is the same everywhere
    context_settings={"help_option_names": ["-h", "--help"]},
)
#: typer brings its own click or uses the installed one; its usage errors share this base.
CliError: type[Exception] = typer.BadParameter.__bases__[0].__bases__[0]

INTERRUPTED = 130


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hnswcheck {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


app.command(epilog=audit.EPILOG)(audit.audit)
app.command(epilog=diff.EPILOG)(diff.diff)
app.command(epilog=quarantine.EPILOG)(quarantine.quarantine)
app.command(epilog=restore.EPILOG)(restore.restore)
app.command(epilog=repair.EPILOG)(repair.repair)
app.command(epilog=salvage.EPILOG, cls=salvage.SalvageCommand)(salvage.salvage)
app.command(epilog=explain.EPILOG)(explain.explain)
app.command(epilog=explain.SCHEMA_EPILOG)(explain.schema)
app.command(epilog=audit.DEMO_EPILOG)(audit.demo)


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
        complain(f"{says or 'there is nothing to do'} (see hnswcheck --help)")
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
            " (please report it; with HNSWCHECK_TRACEBACK=1 it shows where)"
        )
        return HnswcheckError.exit_code
    if code == INTERRUPTED:  # newer typer returns this itself
        complain("interrupted")
    return code if isinstance(code, int) else 0
