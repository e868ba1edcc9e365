"""What the next Chroma would refuse, and that nothing we build is among it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hnswcheck.checks.next_release import check_next_load
from hnswcheck.formats.header import Header, shaped
from hnswcheck.formats.level0 import Elements
from hnswcheck.repairing.build_index import build_segment
from hnswcheck.repairing.index_settings import IndexSettings
from hnswcheck.store.releases import RELEASES
from hnswcheck.store.segment import open_segment

SOUND = replace(shaped(8, 16, 100, 50), maxlevel=1, enterpoint_node=0)


def rules(header: Header, *labels: int) -> int:
    """How many are broken."""
    elements = Elements(np.array(labels, np.uint64), np.zeros(len(labels), bool))
    return sum(found.count for found in check_next_load(header, elements))


@pytest.mark.parametrize("count", [1, 60])
@pytest.mark.parametrize("line", RELEASES)
def test_what_a_repair_builds_passes(line: str, count: int, tmp_path: Path) -> None:
    pytest.importorskip("hnswlib")
    vectors = np.random.default_rng(1).normal(size=(count, 8)).astype(np.float32)
    settings = IndexSettings(space="l2", dimension=8, line=line)
    folder, seq_ids = tmp_path / "segment", np.arange(1, count + 1)
    build_segment(
        folder,
        [vectors],
        [b"%d" % n for n in range(count)],
        settings,
        scratch=tmp_path / "scratch",
        seq_ids=seq_ids,
        max_seq_id=count,
    )
    built = open_segment(folder)
    assert built.header is not None
    assert built.header.count == count
    assert not list(check_next_load(built.header, built.read_elements()))


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({}, 0),
        ({"ef_construction": 4096}, 0),
        ({"ef_construction": 4097}, 1),
        ({"ef_construction": 1}, 0),
        ({"ef_construction": 0}, 1),
        ({"m": 2, "mult": 1 / math.log(2)}, 0),
        ({"m": 1}, 1),
        ({"m": 10_000, "mult": 1 / math.log(10_000)}, 0),
        ({"m": 10_001}, 1),
        ({"mult": SOUND.mult + 1e-11}, 1),
        ({"mult": SOUND.mult + 1e-13}, 0),
        ({"max_elements": 1000}, 0),
        ({"max_elements": 1001}, 1),
        ({"cur_element_count": 101, "max_elements": 1010}, 0),
        ({"cur_element_count": 101, "max_elements": 1011}, 1),
        ({"maxlevel": 2048}, 0),
        ({"maxlevel": 2049}, 1),
        ({"cur_element_count": 0}, 1),
        ({"cur_element_count": 0, "maxlevel": -1, "enterpoint_node": 0xFFFFFFFF}, 0),
        ({"ef_construction": 5000, "max_elements": 5000}, 2),
    ],
)
def test_each_rule_has_a_limit(changed: dict[str, Any], broken: int) -> None:
    assert rules(replace(SOUND, **changed), 1, 2, 3) == broken


@pytest.mark.parametrize(
    ("labels", "broken"), [((1, 2), 0), ((1, 0), 1), ((1, 1 << 32), 1), ((1, (1 << 32) - 1), 0)]
)
def test_a_label_is_1_to_the_largest_of_32_bits(labels: tuple[int, ...], broken: int) -> None:
    assert rules(SOUND, *labels) == broken
    assert not list(check_next_load(SOUND, None))
