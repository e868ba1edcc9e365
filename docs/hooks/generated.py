"""Pages that mkdocs makes of the package itself, so that they cannot fall behind it.

One page per finding (from the registry), one for the commands (from the command line) and one for
the public names (from ``hnswcheck.__all__``). A page that would load something from another host
fails the strict build.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import hnswcheck
from hnswcheck.cli.app import app
from hnswcheck.findings import REGISTRY
from hnswcheck.kinds import Kind

log = logging.getLogger("mkdocs.hooks.hnswcheck")

API = "reference/api.md"
COMMANDS = "reference/commands.md"
#: What a browser would fetch from elsewhere to show the page; links that a reader follows are fine.
EXTERNAL = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\"'>\s]+"
)
#: Roles of docstrings, which mkdocstrings leaves as they are.
ROLE = re.compile(r":(?:func|class|meth|mod):(?=<code>)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation gets the pages of the findings, group by group."""
    for entry in config.nav or ():
        if isinstance(entry, dict) and "Findings" in entry:
            entry["Findings"] += [
                {group.capitalize(): [finding_path(kind) for kind in kinds]}
                for group, kinds in groups().items()
            ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The generated pages join those of ``docs/``."""
    pages = {finding_path(kind): finding_page(kind) for kind in REGISTRY.values()}
    pages |= {API: api_page(), COMMANDS: commands_page()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Roles of docstrings go; what they name stays, as code."""
    return ROLE.sub("", html)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """A page that loads from another host is a warning, which ``--strict`` makes an error."""
    for found in EXTERNAL.findall(output):
        log.warning("%s loads from another host: %s", page.file.src_uri, found)
    return output


# --- Findings ------------------------------------------------------------------------------------


def finding_path(kind: Kind) -> str:
    """Where the page of a finding is, below ``docs/``."""
    return f"findings/{kind.id}.md"


def groups() -> dict[str, list[Kind]]:
    """The registry by group, in its own order."""
    found: dict[str, list[Kind]] = {}
    for kind in REGISTRY.values():
        found.setdefault(kind.group, []).append(kind)
    return found


def finding_page(kind: Kind) -> str:
    """One finding: what it means, what Chroma does, what to do, and what is found beside it."""
    near = [other for other in groups()[kind.group] if other.id != kind.id]
    severity = f"`{kind.severity}`, group *{kind.group}*"
    if kind.undecides:
        severity += "; no verdict about the store or segment is possible"
    lines = [
        f"# {kind.id}",
        "",
        f"**{kind.title[0].upper()}{kind.title[1:]}.**",
        "",
        f"Severity: {severity}.",
        "",
        "## What Chroma does",
        "",
        kind.consequence,
        "",
        *([f"Chroma 0.x: {kind.in_python}", ""] if kind.in_python else []),
        "## What to do",
        "",
        kind.remedy,
        "",
        "First time here? Follow [My store is damaged, what now?](../damaged.md): copy first.",
        "",
        "## The same in a terminal",
        "",
        "```sh",
        f"hnswcheck explain {kind.id}",
        "```",
        "",
        "## Near ones",
        "",
        *(f"- [{other.id}]({other.id}.md): {other.title}" for other in near),
        "- [All findings](index.md)",
        "",
    ]
    return "\n".join(lines)


# --- Commands ------------------------------------------------------------------------------------


def commands_page() -> str:
    """Each command's own help page, as a terminal of 80 columns shows it."""
    group: Any = typer.main.get_command(app)
    lines = ["# Commands", "", "What `hnswcheck COMMAND --help` prints.", ""]
    for name in group.commands:
        lines += [f"## hnswcheck {name}", "", "```text", help_page(name).strip(), "```", ""]
    return "\n".join(lines)


def help_page(name: str) -> str:
    """What a command prints when it is asked for help."""
    command = [sys.executable, "-m", "hnswcheck", name, "--help"]
    plain = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=plain).stdout


# --- Public names --------------------------------------------------------------------------------


def api_page() -> str:
    """Every public name, grouped by what it is."""
    names = [name for name in hnswcheck.__all__ if not name.startswith("__")]
    kinds: dict[str, list[str]] = {"Functions": [], "Values": [], "Errors": []}
    for name in names:
        kinds[_kind_of(getattr(hnswcheck, name), name)].append(name)
    lines = [
        "# API",
        "",
        "The public names of `hnswcheck`. Everything else may change without notice.",
        "",
    ]
    for title, members in kinds.items():
        lines += [f"## {title}", ""]
        lines += [line for name in members for line in (f"::: hnswcheck.{name}", "")]
    return "\n".join(lines)


def _kind_of(value: object, name: str) -> str:
    if isinstance(value, type) and issubclass(value, BaseException):
        return "Errors"
    return "Functions" if name.islower() else "Values"
