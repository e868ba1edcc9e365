"""Which function embeds the documents of a collection: the caller's, or the collection's own.

chromadb keeps a collection's embedding function by name and settings since 1.0, and builds it again
from its table of known ones (chromadb/utils/embedding_functions/__init__.py). Only where a caller
asks for that is chromadb imported.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final, Literal

from hnswcheck.errors import RepairRefused, UsageError

Embed = Callable[[list[str]], Sequence[Sequence[float]]]
Own = Literal["own"]

#: The embedding function that the collection itself names.
OWN: Final = "own"
#: Documents that are embedded at a time.
BATCH = 256
#: The type of a function that chromadb can build again.
KNOWN_TYPE = "known"
INSTEAD = "name a function with --embed-with MODULE:FUNCTION (embed= in Python)"

log = logging.getLogger("hnswcheck")


@dataclass(frozen=True, slots=True)
class Embedder:
    """A function that is ready to be asked.

    Attributes:
        label: names it to a person.
        identity: the same in another process where the function is the same; None where nobody
            can tell.
    """

    function: Embed
    label: str
    identity: str | None


@dataclass(frozen=True, slots=True)
class Embedding:
    """How a caller wants documents to be embedded.

    Attributes:
        function: from documents to vectors; "own" for that of each collection; or a class of
            chromadb's embedding functions, to be built as the collection says.
        batch: documents it gets at a time.
        name: the function's, where the caller knows it by one that lasts.
        tell: told in one line what a person should know at once.
    """

    function: Embed | Own
    batch: int = BATCH
    name: str | None = None
    tell: Callable[[str], None] = log.warning

    @classmethod
    def of(
        cls,
        function: Embed | Own,
        batch: int = BATCH,
        name: str | None = None,
        tell: Callable[[str], None] = log.warning,
    ) -> Embedding:
        """The same, looked at.

        Raises:
            UsageError: there is no such function, or no such batch.
        """
        if function != OWN and not callable(function):
            raise UsageError(f"{name or function!r} is neither a function nor {OWN!r}")
        if isinstance(function, type) and not _is_buildable(function):
            raise UsageError(
                f"{name or function.__name__} is a class; give a function or an object"
            )
        if batch < 1:
            raise UsageError(f"a batch needs at least one document, not {batch}")
        return cls(function, batch, name, tell)

    def embedder(self, kept: Mapping[str, object] | None) -> Embedder:
        """The function for one collection.

        Args:
            kept: what Chroma keeps of the collection's own.

        Raises:
            RepairRefused: the collection's own is asked for, and cannot be had.
        """
        if self.function == OWN:
            return _own(kept, None)
        if isinstance(self.function, type):
            return _own(kept, self.function)
        name = self.name or _lasting_name(self.function)
        return Embedder(self.function, name or "a function", name)


def _is_buildable(function: type) -> bool:
    return hasattr(function, "build_from_config") and hasattr(function, "name")


def _lasting_name(function: Embed) -> str | None:
    """MODULE:FUNCTION; None for what may be something else under that name in the next process."""
    if not isinstance(function, FunctionType | BuiltinFunctionType):
        return None
    module, name = function.__module__, function.__qualname__
    return None if not module or "<" in name else f"{module}:{name}"


def _own(kept: Mapping[str, object] | None, given: type | None) -> Embedder:
    """The function that a collection keeps.

    Args:
        given: its class; else it has to be one that chromadb knows.
    """
    if kept is None:
        raise RepairRefused(
            f"Chroma kept no embedding function with it (Chroma 1.0 began to); {INSTEAD}"
        )
    name, config = kept.get("name"), kept.get("config")
    if kept.get("type") != KNOWN_TYPE or not isinstance(name, str) or not isinstance(config, dict):
        raise RepairRefused(
            f"its embedding function is kept as {kept.get('type')!r}, which does not say what it"
            f" was; {INSTEAD}"
        )
    what = f"its embedding function {name!r}"
    maker: Any = given or _known(name, what)
    try:
        own = maker.name()
        made = maker.build_from_config(config) if own == name or not given else None
    except Exception as error:
        raise RepairRefused(f"{what} cannot be built: {in_short(error)}; {INSTEAD}") from error
    if given and own != name:
        raise RepairRefused(f"{what} is not {own!r}, the one that was given")
    if not callable(made):
        raise RepairRefused(f"{what} cannot be built from what is kept of it; {INSTEAD}")
    digest = hashlib.sha256(json.dumps([name, config], sort_keys=True).encode()).hexdigest()
    return Embedder(made, name, f"{name} {digest}")


def _known(name: str, what: str) -> Any:
    """The class that chromadb has under a name."""
    try:
        from chromadb.utils.embedding_functions import known_embedding_functions
    except Exception as error:
        match error:
            case ModuleNotFoundError(name=str(module)) if module.split(".")[0] == "chromadb":
                why = "chromadb is not installed here"
            case ImportError(name="chromadb.utils.embedding_functions"):
                why = "the chromadb that is installed here is older than 1.0"
            case _:
                why = f"chromadb cannot be imported: {in_short(error)}"
        raise RepairRefused(f"{what} cannot be built: {why}; {INSTEAD}") from error
    if name not in known_embedding_functions:
        raise RepairRefused(
            f"chromadb does not know {what}; name its class with --embed-with MODULE:CLASS,"
            " or a function with --embed-with MODULE:FUNCTION"
        )
    return known_embedding_functions[name]


def in_short(error: BaseException) -> str:
    """An error of other people's code in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
