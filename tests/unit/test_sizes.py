"""How large a room may be: modules, functions, and values that are made by position."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

import hnswcheck

MODULES = sorted(Path(hnswcheck.__path__[0]).rglob("*.py"))
MOST_LINES, MOST_IN_A_FUNCTION, MOST_LOCALS, BY_POSITION = 400, 60, 20, 4
#: One row of a table each, in columns.
ROWS = {"Kind"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines(function: Function) -> int:
    """Of its code, without what it says of itself."""
    code = function.body[1:] if ast.get_docstring(function) else function.body
    return sum((node.end_lineno or 0) - node.lineno + 1 for node in code)


def functions(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from functions(constant)


def values_by_position(tree: ast.Module) -> Iterator[str]:
    """Dataclasses with many fields whose arguments need no names."""
    for found in ast.walk(tree):
        if isinstance(found, ast.ClassDef) and found.name not in ROWS:
            made = [
                ast.unparse(one) for one in found.decorator_list if "dataclass" in ast.dump(one)
            ]
            fields = [
                one
                for one in found.body
                if isinstance(one, ast.AnnAssign) and "ClassVar" not in ast.unparse(one.annotation)
            ]
            if made and len(fields) > BY_POSITION and "kw_only=True" not in made[0]:
                yield found.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_can_be_read_at_once(path: Path) -> None:
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    assert source.count("\n") <= MOST_LINES
    long = {f.name: lines(f) for f in ast.walk(tree) if isinstance(f, Function)}
    assert {name for name, count in long.items() if count > MOST_IN_A_FUNCTION} == set()
    many = {
        code.co_qualname
        for code in functions(compile(source, str(path), "exec"))
        if code.co_flags & 2  # a function, whose names are its own
        and code.co_nlocals - code.co_argcount - code.co_kwonlyargcount > MOST_LOCALS
    }
    assert many == set()
    assert list(values_by_position(tree)) == []
