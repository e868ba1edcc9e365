"""Pages say what is true now. ``python tests/docs/test_docs.py`` writes their generated parts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hnswcheck.findings import REGISTRY
from hnswcheck.salvaging.reason import Reason

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def demo_block() -> str:
    command = [sys.executable, "-m", "hnswcheck", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    _, _, shown = done.stdout.partition("\n\n")
    path = shown.splitlines()[0]
    shown = shown.replace(path, "./chroma")
    shown = re.sub(r"\d+\.\d\d s\n", "0.04 s\n", shown)
    return f"```text\n{shown.rstrip()}\n```\n"


def findings_block() -> str:
    lines = ["| finding | severity | meaning |", "|---|---|---|"]
    lines += [
        f"| [`{kind.id}`]({kind.id}.md) | {kind.severity} | {kind.title} |"
        for kind in REGISTRY.values()
    ]
    return "\n" + "\n".join(lines) + "\n\n"


def reasons_block() -> str:
    lines = ["| grade | reason | why |", "|---|---|---|"]
    lines += [
        f"| {one.grade.name.lower() if one.grade is not None else 'any but proven'}"
        f" | `{one.slug}` | {one.sentence} |"
        for one in reversed(Reason)
    ]
    return "\n" + "\n".join(lines) + "\n\n"


#: Which page has which generated part.
BLOCKS: dict[str, tuple[Path, Callable[[], str]]] = {
    "demo": (ROOT / "docs" / "reading-a-report.md", demo_block),
    "reasons": (ROOT / "docs" / "repair.md", reasons_block),
    "findings": (ROOT / "docs" / "findings" / "index.md", findings_block),
}


def rendered(name: str) -> str:
    """A page with its generated part as it must be."""
    page, block = BLOCKS[name]
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, found, rest = page.read_text("utf-8").partition(begin)
    _, ended, tail = rest.partition(end)
    assert found
    assert ended
    return head + begin + block() + end + tail


def test_reading_a_report_shows_what_the_demo_prints() -> None:
    assert BLOCKS["demo"][0].read_text("utf-8") == rendered("demo")


def test_repair_lists_every_reason_of_a_grade() -> None:
    assert BLOCKS["reasons"][0].read_text("utf-8") == rendered("reasons")


def test_the_list_of_findings_is_the_registry() -> None:
    assert BLOCKS["findings"][0].read_text("utf-8") == rendered("findings")


def test_demo_is_a_store_of_the_corpus() -> None:
    demo = (ROOT / "hnswcheck" / "demo.tar.xz").read_bytes()
    corpus = ROOT / "fixtures" / "corpus"
    assert demo == (corpus / "1.5.9" / "damaged-ledger" / "folder-older.tar.xz").read_bytes()


def test_readme_is_a_page_that_is_read() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 120


def test_test_command_is_the_one_that_ci_runs() -> None:
    command = r"^python3 -m venv .* pytest$"
    assert len(re.findall(command, README.read_text("utf-8"), re.MULTILINE)) == 1
    assert "python3 -m venv .* pytest" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_readme_leads_to_pages_that_are_there() -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", README.read_text("utf-8"))
    assert len(links) > 10
    for link in links:
        assert (ROOT / link).exists(), link


if __name__ == "__main__":
    for block, (page, _) in BLOCKS.items():
        page.write_text(rendered(block), encoding="utf-8")
