"""The end of a help page: examples and exit codes, in lines that are not wrapped again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap

#: click leaves a paragraph alone that begins with this.
AS_IT_IS = "\b\n"
WIDTH = 74
WRONG_USE = {2: "wrong use"}
INTERRUPTED = {130: "interrupted"}


def epilog(examples: Sequence[str], codes: Mapping[int, str]) -> str:
    """Examples and exit codes for a help page.

    Args:
        examples: commands without the name of the program.
        codes: the meaning of each exit code but 2 and 130, which mean the same everywhere.
    """
    lines = [f"Example{'s' if len(examples) > 1 else ''}:"]
    lines += [f"  hnswcheck {example}" for example in examples]
    ends = sorted({**codes, **WRONG_USE, **INTERRUPTED}.items())
    return "\n\n".join((AS_IT_IS + "\n".join(lines), numbered("Exit codes:", ends)))


def numbered(title: str, meanings: Iterable[tuple[int, str]]) -> str:
    """A paragraph of a help page: numbers, and what each of them means."""
    lines = [title]
    for number, meaning in meanings:
        first, *more = wrap(meaning, WIDTH - 7)
        lines += [f"  {number:3}  {first}", *(f"       {line}" for line in more)]
    return AS_IT_IS + "\n".join(lines)
