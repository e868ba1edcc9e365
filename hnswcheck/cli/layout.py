"""Lines that fit into 80 columns, the same on every terminal and in every file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hnswcheck.cli.terminal import WIDTH, visible

#: What a page is made of.
Line = Text | Padding
DOTS = "..."
#: A single word of foreign text takes no more cells, so that it fits into every indented line.
LONGEST_WORD = 70
WORD = re.compile("[^ ]+ *")


def wrapped(text: Text | str, indent: int = 0, hang: int | None = None) -> Iterator[Text]:
    """``text`` in lines of at most 80 cells, broken at spaces only.

    A word that is longer than a line stays whole, so that a path can be copied.

    Args:
        indent: spaces before the first line.
        hang: spaces before each other line; ``indent`` by default.
    """
    text = Text(text) if isinstance(text, str) else text
    hang = indent if hang is None else hang
    breaks: list[int] = []
    used, start = indent, indent
    for match in WORD.finditer(text.plain):
        word = match.group()
        if used > start and used + cell_len(word.rstrip(" ")) > WIDTH:
            breaks.append(match.start())
            used = start = hang
        used += cell_len(word)
    for number, line in enumerate(text.divide(breaks)):
        line.rstrip()
        yield Text(" " * (hang if number else indent)).append_text(line)


def shortened(text: str, width: int = LONGEST_WORD) -> str:
    """``text``, or its beginning and its end, in at most ``width`` cells."""
    if cell_len(text) <= width:
        return text
    end = (width - len(DOTS)) // 2
    begin = width - len(DOTS) - end
    tail = text[-end:]
    while cell_len(tail) > end:
        tail = tail[1:]
    return f"{set_cell_size(text, begin).rstrip()}{DOTS}{tail}"


def foreign(text: str) -> str:
    """Text of a store: made harmless, and each word short enough for a line."""
    return " ".join(map(shortened, visible(text).split(" ")))


def table(
    rows: Sequence[Sequence[str]], align: Sequence[str], widths: Sequence[int], indent: int
) -> Padding:
    """Columns beside each other; only the last one may be wrapped.

    Args:
        align: "left" or "right" for each column.
        widths: the least cells of each column.
    """
    grid = Table.grid(padding=(0, 2, 0, 0))
    for number, (side, width) in enumerate(zip(align, widths, strict=True), 1):
        last = number == len(align)
        grid.add_column(
            justify="right" if side == "right" else "left",
            min_width=width or None,
            no_wrap=not last,
            overflow="fold",
        )
    for row in rows:
        grid.add_row(*map(Text, row))
    return Padding(grid, (0, 0, 0, indent), expand=False)
