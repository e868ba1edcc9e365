"""Every message and help page in one file, so that a pass over the English reads one file.

``python tests/unit/test_messages.py`` writes tests/golden/messages.txt anew.
"""

from __future__ import annotations

import ast
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import typer

from hnswcheck.cli import app
from hnswcheck.findings import REGISTRY

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hnswcheck"
GOLDEN = ROOT / "tests" / "golden" / "messages.txt"
AGAIN = f"python {Path(__file__).relative_to(ROOT)}"

#: A text for a person: words with a space between them, or the name of something to replace.
SENTENCE = re.compile(r"[A-Za-z}'\")],? [a-z{'\"(A-Z]")
#: Statements and parts of them.
SQL = re.compile(
    r"\W*(SELECT|INSERT|UPDATE|DELETE|PRAGMA|BEGIN|WHERE|CASE|CAST|LEFT|NULL|segment_id|strftime"
    r"|group_concat|d\.tenant_id|\?1|\{expression\}|bold )"
)
#: What is shown elsewhere in the file.
NOT_HERE = {"findings.py", "consequences.py", "kinds.py"}


def help_page(*words: str) -> str:
    """What the program prints, 80 columns wide."""
    shown = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS="80", TERM="dumb"), redirect_stdout(shown):
        assert app.run([*words, "--help"]) == 0
    return shown.getvalue()


def help_pages() -> Iterator[str]:
    commands = getattr(typer.main.get_command(app.app), "commands", {})
    for words in ((), *((name,) for name in commands)):
        yield f"$ {' '.join(['hnswcheck', *words, '--help'])}\n{help_page(*words)}"


def findings() -> Iterator[str]:
    for kind in REGISTRY.values():
        in_python = f"  In 0.x: {kind.in_python}\n" if kind.in_python else ""
        yield (
            f"{kind.id} ({kind.severity}): {kind.title}\n"
            f"  Chroma: {kind.consequence}\n{in_python}  Do: {kind.remedy}\n"
        )


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """(error, text) of each string for a person in a module, in its order."""
    tree = ast.parse(path.read_text("utf-8"))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr | ast.Constant) or _is_part(node, parents):
            continue
        text = _template(node)
        if text is None or not SENTENCE.search(text) or SQL.match(text):
            continue
        if not _is_docstring(node, parents) and not _is_help(node, parents):
            found.append((node.lineno, node.col_offset, _error(node, parents), text))
    for _, _, error, text in sorted(found):
        yield error, text


def _template(node: ast.AST) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(
                f"{{{ast.unparse(part.value)}}}"
                if isinstance(part, ast.FormattedValue)
                else str(_template(part))
                for part in parts
            )
    return None


def _is_part(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    return isinstance(parents.get(node), ast.JoinedStr | ast.FormattedValue)


def _is_docstring(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    return isinstance(parents.get(node), ast.Expr)


def _is_help(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether typer shows it on a help page."""
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("typer."):
            return True
    return False


def _error(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    """The error that is raised with it; empty where none is."""
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            return ast.unparse(node.exc.func)
        if isinstance(node, ast.stmt):
            return ""
    return ""


def messages() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name in NOT_HERE:
            continue
        lines = [f"  {f'{error}: ' if error else ''}{text!r}\n" for error, text in texts(path)]
        if lines:
            yield f"{path.relative_to(PACKAGE).as_posix()}\n{''.join(lines)}"


def everything() -> str:
    sections = {
        f"Written by {AGAIN}": (),
        "HELP PAGES": help_pages(),
        "FINDINGS": findings(),
        "MESSAGES": messages(),
    }
    return "\n".join(f"# {title}\n\n" + "\n".join(body) for title, body in sections.items())


def test_the_file_of_all_messages_is_up_to_date() -> None:
    assert GOLDEN.read_text("utf-8") == everything(), f"if that is meant: {AGAIN}"


def test_every_error_that_is_raised_with_a_text_is_in_the_file() -> None:
    """What the walk finds is what a person can be told: no raise with a literal is left out."""
    golden = GOLDEN.read_text("utf-8")
    for name in ("StoreInUse", "RestoreRefused", "UsageError", "SchemaUnknown", "StoreUnreadable"):
        assert re.search(rf"^  {name}: ['\"]", golden, re.MULTILINE), name


def test_no_line_of_a_help_page_is_wider_than_80_columns() -> None:
    assert max(len(line) for page in help_pages() for line in page.splitlines()) <= 80


if __name__ == "__main__":
    GOLDEN.write_text(everything(), encoding="utf-8")
    sys.stdout.write(f"{GOLDEN}\n")
