"""Everything that a page tells its readers to type does what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
import typer
from pages import (
    NOT_RUN,
    PAGES,
    WITHOUT_VECTORS,
    Session,
    Statement,
    blocks,
    is_run,
    play,
    sessions,
    statements,
)
from stores import REPOSITORY, run

from hnswcheck.cli.app import app

pytestmark = pytest.mark.slow  # each statement is a process

SESSIONS = [session for page in PAGES for session in sessions(page)]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def asks_chroma(session: Session) -> bool:
    """Whether a session uses the real Chroma, or a store that has to be made by it."""
    made = any(name == WITHOUT_VECTORS for name, _ in session.stores)
    return made or any("import chromadb" in one.text for one in session.statements)


@pytest.mark.parametrize(
    "session",
    [pytest.param(s, marks=[pytest.mark.engine] * asks_chroma(s), id=s.name) for s in SESSIONS],
)
def test_what_a_page_shows_ends_as_it_says(session: Session, tmp_path: Path) -> None:
    for outcome in play(session, tmp_path):
        statement = outcome.statement
        where = f"{session.page.name}:{statement.line}: {statement.text}"
        assert outcome.code == statement.code, f"{where}\n{outcome.printed}"


def test_every_command_is_shown_somewhere() -> None:
    shown = " ".join(one.text for s in SESSIONS for one in s.statements if is_run(one))
    assert set(re.findall(r"\bhnswcheck (\w+)", shown)) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    shown = run(name, "--help")
    assert shown.returncode == 0
    assert "Example" in shown.stdout


def test_only_set_up_and_measuring_is_not_run() -> None:
    """Nothing slips past by standing behind what is left out."""
    left_out = [one for s in SESSIONS for one in s.statements if not is_run(one)]
    assert left_out
    set_up = re.compile(r"^python3 -m venv \.venv && \.venv/bin/pip install \S+( && .*)?$")
    for statement in left_out:
        assert "hnswcheck " not in statement.text or set_up.match(statement.text), statement


def test_every_module_that_a_page_names_is_there() -> None:
    """From the root of the repository, or from that of the package."""
    for page in PAGES:
        for name in re.findall(r"(?<![\w./])((?:\w+/)+\w+\.(?:py|txt))\b", page.read_text("utf-8")):
            there = [(root / name).is_file() for root in (REPOSITORY, REPOSITORY / "hnswcheck")]
            assert any(there), f"{page.name}: {name}"


# --- Options -------------------------------------------------------------------------------------

#: Options of other programs that pages name.
FOREIGN = {"--all", "--collect-only", "--strict", "--help", "--version", "--envs", "--only"}


def options() -> Iterator[str]:
    for command in COMMANDS.values():
        for parameter in command.params:
            yield from parameter.opts
    for script in [
        *(REPOSITORY / "benchmarks").glob("*.py"),
        *(REPOSITORY / "fixtures").glob("*.py"),
    ]:
        yield from re.findall(r"\"(--[a-z-]+)\"", script.read_text("utf-8"))


def test_every_option_that_a_page_names_exists() -> None:
    known = {*options(), *FOREIGN}
    for page in PAGES:
        for line, _, content in blocks(page.read_text("utf-8")):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", content):
                assert option in known, f"{page.name}:{line}: {option}"


# --- The sessions themselves ---------------------------------------------------------------------


def test_statements_end_where_the_shell_says() -> None:
    block = "a   # exits 1: why\n\nfor x in 1 2; do\n  b\ndone\ncat <<'EOF'\nc\nEOF\nd \\\n  e\n"
    assert list(statements(10, block)) == [
        Statement(10, "sh", "a   # exits 1: why", 1),
        Statement(12, "sh", "\nfor x in 1 2; do\n  b\ndone".lstrip("\n"), 0),
        Statement(15, "sh", "cat <<'EOF'\nc\nEOF", 0),
        Statement(18, "sh", "d \\\n  e", 0),
    ]


def test_a_statement_that_ends_otherwise_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nhnswcheck audit ./chroma\nhnswcheck explain no-such-finding\n```\n")
    (session,) = sessions(page)
    (tmp_path / "scratch").mkdir()
    assert [outcome.code for outcome in play(session, tmp_path / "scratch")] == [1, 2]


def test_what_is_not_run_begins_with_a_program_of_its_own() -> None:
    assert not NOT_RUN.match("hnswcheck audit ./chroma")
    assert pages.DEMO.is_file()
