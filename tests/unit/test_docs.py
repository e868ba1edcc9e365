"""The README says what is true now.

``python tests/unit/test_docs.py`` writes its generated parts.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hnswcheck.findings import REGISTRY

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def demo_block() -> str:
    command = [sys.executable, "-m", "hnswcheck", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    _, _, shown = done.stdout.partition("\n\n")
    path = shown.splitlines()[0]
    shown = shown.replace(path, "./chroma")
    shown = re.sub(r"\d+\.\d\d s\n", "0.04 s\n", shown)
    return f"```text\n{shown.rstrip()}\n```\n"


def findings_block() -> str:
    lines = ["| finding | severity | meaning |", "|---|---|---|"]
    lines += [f"| `{kind.id}` | {kind.severity} | {kind.title} |" for kind in REGISTRY.values()]
    return "\n" + "\n".join(lines) + "\n\n"


def rendered(text: str) -> str:
    for name, block in (("demo", demo_block()), ("findings", findings_block())):
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = head + begin + block + end + tail
    return text


def test_readme_shows_the_demo_and_every_finding() -> None:
    text = README.read_text("utf-8")
    assert text == rendered(text)


def test_demo_is_a_store_of_the_corpus() -> None:
    demo = (ROOT / "hnswcheck" / "demo.tar.xz").read_bytes()
    corpus = ROOT / "fixtures" / "corpus"
    assert demo == (corpus / "1.5.9" / "damaged-ledger" / "folder-older.tar.xz").read_bytes()


def test_every_command_of_the_readme_exists() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    commands = re.findall(r"hnswcheck (\w+)", "".join(blocks))
    assert set(commands) >= {"audit", "explain", "demo"}
    for command in sorted(set(commands)):
        arguments = [sys.executable, "-m", "hnswcheck", command, "--help"]
        shown = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        assert "Example" in shown


def test_test_command_is_the_one_that_ci_runs() -> None:
    command = r"^python3 -m venv .* pytest$"
    assert len(re.findall(command, README.read_text("utf-8"), re.MULTILINE)) == 1
    assert "python3 -m venv .* pytest" in (ROOT / ".ci" / "run").read_text("utf-8")


if __name__ == "__main__":
    README.write_text(rendered(README.read_text("utf-8")), encoding="utf-8")
