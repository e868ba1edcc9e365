"""The public names of the package, and what importing it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import hnswcheck


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def imported_for_types() -> dict[str, str]:
    """By name, the module that type checkers import it from."""
    tree = ast.parse(Path(hnswcheck.__file__).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_every_public_name_is_loaded_from_where_type_checkers_find_it() -> None:
    typed = imported_for_types()
    assert {*typed, "__version__"} == set(hnswcheck.__all__)
    assert {name: f"hnswcheck.{home}" for name, home in hnswcheck._HOME_OF.items()} == typed
    for name, home in typed.items():
        assert getattr(hnswcheck, name) is vars(sys.modules[home])[name]


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import hnswcheck; print('numpy' in sys.modules)"
    assert run(code) == "False"


def test_no_room_hides_a_public_function() -> None:
    code = (
        "import hnswcheck, hnswcheck.repairing.repair, hnswcheck.guarding, hnswcheck.cli.app;"
        "print(all(callable(getattr(hnswcheck, name)) for name in"
        " ('audit', 'guard', 'repair', 'salvage', 'quarantine', 'restore')))"
    )
    assert run(code) == "True"
