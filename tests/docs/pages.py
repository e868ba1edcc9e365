"""What the pages tell people to type, played as one session each.

The code blocks of a page are run from top to bottom in one empty directory, as a reader would who
follows the page: every statement of each ``sh`` block by bash, every ``python`` block by Python. A
statement must end with 0, or as its own comment says (``# exits 1: ...``). A page begins with the
demo store as ``./chroma``. The comments ``<!-- store: FIXTURE -->`` and
``<!-- store: FIXTURE as ./DIRECTORY -->`` begin a new session, with these stores.

Only what ``NOT_RUN`` names is left out. ``NAME`` after ``--quarantine`` stands for the newest
quarantine in ./chroma.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from textwrap import dedent

from stores import REPOSITORY, SUPPORT, environment, unpack

import hnswcheck

PAGES = (
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "SECURITY.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)
DEMO = REPOSITORY / "hnswcheck" / "demo.tar.xz"

STORE = re.compile(r"<!-- store: (?P<name>[\w.-]+)(?: as (?P<path>\./[\w.-]+))? -->")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^`]*$")
EXITS = re.compile(r"#.*\bexits (\d+)\b")
#: What would install, test or measure instead of using the program.
NOT_RUN = re.compile(
    r"^(python3 -m venv |pip install |git |\.ci/run|\.venv/bin/|mkdocs |python benchmarks/"
    r"|python fixtures/|python tests/|(HNSWCHECK_ENVS=ENVS )?python -m pytest)"
)

#: Names a store that no fixture has: they have no documents.
WITHOUT_VECTORS = "documents-without-vectors"

#: The program, with the placeholder of the pages filled in.
SHIM = f"""#!{sys.executable}
import pathlib, sys
arguments = sys.argv[1:]
aside = pathlib.Path("chroma").glob("*.quarantined-*")
newest = max((p.name for p in aside if p.is_dir()), default="none")
for at, argument in enumerate(arguments):
    if argument == "NAME" and arguments[at - 1] == "--quarantine":
        arguments[at] = newest
from hnswcheck.cli.app import main
main(arguments)
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """What is typed, where it is written, and how it must end."""

    line: int
    language: str
    text: str
    code: int = 0


@dataclass(slots=True)
class Session:
    """Statements that follow each other in one directory.

    Attributes:
        stores: (fixture, directory); none for the demo store as ./chroma.
    """

    page: Path
    stores: list[tuple[str, str]] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)

    @property
    def name(self) -> str:
        line = self.statements[0].line if self.statements else 0
        return f"{self.page.relative_to(REPOSITORY)}:{line}"


def blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, language, content) of each fenced block; a line of prose has the language ""."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        fence = FENCE.match(lines[at])
        if fence is None:
            yield at + 1, "", lines[at]
            at += 1
            continue
        end = next(n for n in range(at + 1, len(lines)) if lines[n].strip() == "```")
        yield at + 2, fence["language"] or "text", dedent("\n".join(lines[at + 1 : end]))
        at = end + 1


def sessions(page: Path) -> list[Session]:
    """What a page has its readers do."""
    found = [Session(page)]
    for line, language, content in blocks(page.read_text("utf-8")):
        if store := STORE.search(content) if not language else None:
            if found[-1].statements:
                found.append(Session(page))
            found[-1].stores.append((store["name"], store["path"] or "./chroma"))
        elif language == "sh":
            found[-1].statements += statements(line, content)
        elif language == "python":
            found[-1].statements.append(Statement(line, language, content))
    return [one for one in found if one.statements]


def statements(first: int, block: str) -> Iterator[Statement]:
    """The statements of a block of shell; one ends where bash says that it is complete."""
    gathered: list[str] = []
    for number, line in enumerate(block.splitlines(), first):
        gathered.append(line)
        text = "\n".join(gathered)
        if text.endswith("\\") or not _is_complete(text):
            continue
        if text.strip() and not text.startswith("#"):
            code = EXITS.search(text)
            start = number - len(gathered) + 1
            yield Statement(start, "sh", text, int(code[1]) if code else 0)
        gathered = []
    assert not gathered, f"a statement that does not end: {gathered}"


def _is_complete(text: str) -> bool:
    done = subprocess.run(["bash", "-n"], input=text + "\n", capture_output=True, text=True)
    return done.returncode == 0 and not done.stderr


def is_run(statement: Statement) -> bool:
    return statement.language == "python" or not NOT_RUN.match(statement.text)


# --- Playing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a statement ended, and what the whole session printed until then."""

    statement: Statement
    code: int | None
    printed: str


def play(session: Session, scratch: Path) -> list[Outcome]:
    """Run a session in one shell; a statement that was never reached has no code."""
    room, tools = scratch / "room", scratch / "tools"
    room.mkdir()
    tools.mkdir()
    place(session.stores, room)
    (tools / "hnswcheck").write_text(SHIM)
    (tools / "hnswcheck").chmod(0o755)
    (tools / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tools / "python").chmod(0o755)
    codes = tools / "codes"
    codes.touch()
    wanted = [one for one in session.statements if is_run(one)]
    script = tools / "session.sh"
    script.write_text("".join(_scripted(wanted, tools, codes)))
    path = f"{tools}:/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-u", script],
        cwd=room,
        env=environment(PATH=path, XDG_CACHE_HOME=str(tools / "cache"), TMPDIR=str(tools)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=300,
    )
    ended = [int(code) for code in codes.read_text().split()]
    padded: Sequence[int | None] = [*ended, *[None] * (len(wanted) - len(ended))]
    return [Outcome(one, code, done.stdout) for one, code in zip(wanted, padded, strict=True)]


def place(stores: Iterable[tuple[str, str]], room: Path) -> None:
    """Unpack the stores of a session, or the demo store."""
    for name, path in stores:
        if name == WITHOUT_VECTORS:
            make_without_vectors(room / path)
        else:
            unpack(name, room / "unpacked").rename(room / path)
            (room / "unpacked").rmdir()
    if not stores:
        with tarfile.open(fileobj=BytesIO(DEMO.read_bytes())) as archive:
            archive.extractall(room / "chroma", filter="data")


def make_without_vectors(store: Path) -> None:
    """A store of real Chroma whose collection docs has documents, and no vectors any more."""
    command = [sys.executable, str(SUPPORT / "embedders.py"), str(store)]
    subprocess.run(command, check=True, env=environment(), capture_output=True)
    for segment in hnswcheck.audit(store).stores[0].segments:
        if segment.collection.name == "docs":
            (store / str(segment.vector_segment) / "data_level0.bin").unlink()


def _scripted(wanted: Sequence[Statement], tools: Path, codes: Path) -> Iterator[str]:
    for number, statement in enumerate(wanted):
        text = statement.text
        if statement.language == "python":
            source = tools / f"block_{number}.py"
            source.write_text(text)
            text = f"python -W error::DeprecationWarning:__main__ {source}"
        yield f"echo '--- line {statement.line}'\n{text}\necho $? >>{codes}\n"
