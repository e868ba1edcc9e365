"""How long the program takes to start, next to what it cannot start without.

``python benchmarks/startup.py``

Each command runs in a fresh process; the fastest of ``--repeat`` runs counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

PAIRS = (
    (("-c", "import hnswcheck"), ("-c", "import numpy")),
    (("-m", "hnswcheck", "--version"), ("-c", "import typer")),
    (("-m", "hnswcheck", "--help"), ("-c", "import typer")),
)


def fastest(arguments: tuple[str, ...], repeat: int) -> float:
    """Seconds of wall time."""
    taken = []
    for _ in range(repeat):
        begun = time.perf_counter()
        command = [sys.executable, *arguments]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - begun)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=10)
    repeat = parser.parse_args().repeat
    print("| command | seconds | next to | seconds | ratio |")
    print("|---|--:|---|--:|--:|")
    for ours, floor in PAIRS:
        taken, least = fastest(ours, repeat), fastest(floor, repeat)
        names = [f"`python {' '.join(each)}`" for each in (ours, floor)]
        print(f"| {names[0]} | {taken:.3f} | {names[1]} | {least:.3f} | {taken / least:.2f} |")


if __name__ == "__main__":
    main()
