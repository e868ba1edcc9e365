"""Generated pages say what the package says, and no page loads anything from another host."""

from __future__ import annotations

import sys

import pytest
import typer
from stores import REPOSITORY, run

import hnswcheck
from hnswcheck.cli.app import app
from hnswcheck.findings import REGISTRY

pytest.importorskip("mkdocs", reason="it builds the pages")
sys.path.insert(0, str(REPOSITORY / "docs" / "hooks"))

import generated


@pytest.mark.parametrize("id", REGISTRY)
def test_the_page_of_a_finding_says_what_the_registry_says(id: str) -> None:
    kind = REGISTRY[id]
    page = generated.finding_page(kind)
    for said in (f"# {id}\n", kind.title[1:], kind.consequence, kind.remedy, f"`{kind.severity}`"):
        assert said in page
    assert kind.in_python in page
    near = {other.id for other in REGISTRY.values() if other.group == kind.group} - {id}
    assert all(f"]({other}.md)" in page for other in near)


def test_the_api_has_every_public_name() -> None:
    page = generated.api_page()
    names = [name for name in hnswcheck.__all__ if not name.startswith("__")]
    assert sorted(names) == sorted(
        line.removeprefix("::: hnswcheck.") for line in page.splitlines() if line.startswith(":::")
    )


def test_the_commands_are_their_help_pages() -> None:
    page = generated.commands_page()
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert run(name, "--help").stdout.strip() in page


@pytest.mark.parametrize(
    "loads",
    [
        '<script src="https://example.org/a.js">',
        '<link rel="stylesheet" href="//example.org/a.css">',
        '<img alt="" src=http://example.org/a.png>',
    ],
)
def test_what_a_page_loads_from_another_host_is_seen(loads: str) -> None:
    assert generated.EXTERNAL.findall(loads)


def test_a_link_that_a_reader_follows_is_fine() -> None:
    shown = '<a href="https://github.com/chroma-core/chroma">Chroma</a><img src="a.png">'
    assert not generated.EXTERNAL.findall(shown)
