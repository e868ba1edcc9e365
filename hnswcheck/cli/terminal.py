"""What goes to stdout, and the one line that goes to stderr."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hnswcheck.errors import OutputFailed
from hnswcheck.formats.text import path_text

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 80
TRAILING = re.compile(" +$", re.MULTILINE)


def visible(text: str) -> str:
    """``text`` with everything escaped that a terminal would not just print."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def page(lines: Iterable[RenderableType], colours: bool) -> str:
    """Lines as they go to a terminal, or without colours to a file; the same words for both.

    Lines of text stand as they are, tables fit into 80 columns.
    """
    from rich.console import Console
    from rich.text import Text

    written = io.StringIO()
    console = Console(
        file=written,
        force_terminal=colours,
        highlight=False,
        markup=False,
        emoji=False,
        width=WIDTH,
        height=25,  # rich asks the terminal for its width where one of the two is missing
        legacy_windows=False,
    )
    for line in lines:
        console.print(line, soft_wrap=isinstance(line, Text))
    return TRAILING.sub("", written.getvalue())


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads what is written there."""
    return stream is not None and stream.isatty()


def show(lines: Iterable[RenderableType], aside: bool = False) -> None:
    """Write lines to stdout, or ``aside`` to stderr, where stdout is for machines."""
    if aside:
        with suppress(OSError, AttributeError):
            sys.stderr.write(page(lines, is_terminal(sys.stderr)))
            sys.stderr.flush()
    else:
        emit(page(lines, is_terminal(sys.stdout)))


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


def complain(message: str) -> None:
    """One line on stderr."""
    line = visible(path_text(" ".join(message.split())))
    with suppress(OSError, AttributeError):  # stderr is closed or full: nobody listens
        sys.stderr.write(f"hnswcheck: {line}\n")
        sys.stderr.flush()
