"""Which releases open each store of the corpus, and what the others say of it.

The answers that stand in ``tests/golden/openers.txt`` were compared with the releases themselves
(``test_for_release.py`` asks some of them again where they are installed). ``python
tests/corpus/test_openers.py`` writes the file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from stores import NAMES, Answer, corpus_answers, unpack

import hnswcheck
from hnswcheck import Level
from hnswcheck.checks.openers import check_opener
from hnswcheck.checks.sampling import Sampler
from hnswcheck.store.openers import OPENERS
from hnswcheck.store.schema import read_schema
from hnswcheck.store.system_tables import read_surroundings
from hnswcheck.store.view import open_store

GOLDEN = Path(__file__).parents[1] / "golden" / "openers.txt"


def answers(store: Path, answer: Answer) -> Iterator[str]:
    """Which releases open it, then each finding about a release that is to open it."""
    if isinstance(answer, hnswcheck.HnswcheckError):
        yield f"no audit: {type(answer).__name__}"
        return
    (report,) = answer.stores
    if report.chroma is None:
        yield "no schema"
        return
    by = report.chroma.readable_by
    yield f"opened by {'nobody knows' if by is None else ', '.join(by) or 'none'}"
    with open_store(store) as opened, opened.database.snapshot():
        schema = read_schema(opened.database)
        found = read_surroundings(opened.database, schema)
    for release in (None, *(opener.last for opener in OPENERS)):
        for one in check_opener(found, schema, release, Sampler(True)):
            yield f"for {release}: {one.id} of {one.found}: {'; '.join(one.sample)}"


def audited(store: Path) -> Answer:
    try:
        return hnswcheck.audit(store)
    except hnswcheck.HnswcheckError as error:
        return error


@cache
def expected() -> dict[str, list[str]]:
    """The answers by the name of the store."""
    found: dict[str, list[str]] = {}
    for block in GOLDEN.read_text("utf-8").split("\n\n"):
        lines = block.strip().splitlines()
        said = [line.strip() for line in lines if line.startswith(" ")]
        found |= {line: said for line in lines if not line.startswith(" ")}
    return found


def check_openers(name: str, store: Path, answer: Answer) -> None:
    assert list(answers(store, answer)) == expected()[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_releases_open_it_and_the_others_say_the_same(name: str, tmp_path: Path) -> None:
    check_openers(name, unpack(name, tmp_path), corpus_answers()[name, Level.STANDARD])


def main() -> None:
    groups: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    with TemporaryDirectory() as scratch:
        for name in NAMES:
            store = unpack(name, Path(scratch))
            groups[tuple(answers(store, audited(store)))].append(name)
    blocks = ("\n".join([*names, *(f"    {line}" for line in said)]) for said, names in
              groups.items())  # fmt: skip
    GOLDEN.write_text("\n\n".join(blocks) + "\n", "utf-8")


if __name__ == "__main__":
    main()
