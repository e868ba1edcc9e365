"""Words on the command line that the library has a type for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hnswcheck.errors import UsageError

if TYPE_CHECKING:
    from hnswcheck.report import Level

#: As a help page shows them: the library itself is imported only by a command that runs.
LEVELS = "[probe|standard|deep]"


def level_named(name: str) -> Level:
    """The level with a name.

    Raises:
        UsageError: there is none.
    """
    from hnswcheck.report import Level

    try:
        return Level(name)
    except ValueError:
        raise UsageError(f"--level: {name!r} is not one of {', '.join(Level)}") from None
