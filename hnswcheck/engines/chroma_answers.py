"""What real Chroma answered about a new index, judged."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnswcheck.formats.arrays import Flags, Floats
from hnswcheck.formats.strings import Strings, positions

#: What a vector that was normalised, stored, and multiplied by its norm again may differ by.
ROUNDING = 1e-5
#: A distance is a sum of as many roundings as there are components.
FAR = 1e-3

#: What each step found, by its name.
Events = Mapping[str, Mapping[str, Any]]
Norms = NDArray[np.float64]


def complaints(
    events: Events, records: Strings, ids: Sequence[str], vectors: Floats, new: Floats, space: str
) -> Iterator[str]:
    """What is wrong with it, the gravest first.

    Args:
        events: see :mod:`hnswcheck.engines.chroma_child`.
        records: all ids that there are.
        ids: of those that were read and searched for; ``vectors`` float32 (k, dimension) are
            theirs.
        new: float32 (dimension,), of the record that was added.
    """
    total = len(records)
    if (counted := events["count()"]["count"]) != total:
        yield f"Chroma counts {counted:,} records instead of {total:,}"
    if ids:
        yield from _wrong_vectors(events["get() of vectors"], ids, vectors, space)
        yield from _wrong_hits(events["query()"], records, vectors, space)
    added = events["add()"]
    kept = _same(_unpacked(added["vectors"]), new[None], space).all()
    if added["count"] != total + 1 or not kept:
        yield "Chroma lost a record that it had just added"
    if events["delete()"]["count"] != total:
        yield "Chroma still has a record that it had just deleted"


def _wrong_vectors(
    found: Mapping[str, Any], ids: Sequence[str], vectors: Floats, space: str
) -> Iterator[str]:
    place = {id: i for i, id in enumerate(found["ids"])}
    if absent := [id for id in ids if id not in place]:
        yield f"Chroma has no vector for {_some(absent, ids)}"
        return
    read = _unpacked(found["vectors"])[[place[id] for id in ids]]
    same = _same(read, vectors, space).tolist()
    if wrong := [id for id, is_same in zip(ids, same, strict=True) if not is_same]:
        yield f"Chroma has another vector than the new index for {_some(wrong, ids)}"


def _wrong_hits(
    found: Mapping[str, Any], records: Strings, vectors: Floats, space: str
) -> Iterator[str]:
    hits = list(dict.fromkeys(hit for each in found["hits"] for hit in each))
    known = positions(Strings.of(hit.encode() for hit in hits), records)
    if phantoms := [hit for hit, at in zip(hits, known.tolist(), strict=True) if at < 0]:
        yield f"Chroma finds ids without a record: {_some(phantoms, hits)}"
    place = {id: i for i, id in enumerate(found["ids"])}
    wrong: list[str] = []
    for vector, own, distances in zip(vectors, found["hits"], found["distances"], strict=True):
        pairs = [(id, told) for id, told in zip(own, distances, strict=True) if id in place]
        near = _unpacked([found["vectors"][place[id]] for id, _ in pairs])
        told = np.array([distance for _, distance in pairs])
        wrong += [pairs[i][0] for i in np.flatnonzero(~_at(vector, near, told, space)).tolist()]
    if wrong:
        yield f"Chroma reports a wrong distance for {_some(wrong, hits)}"


def _at(vector: Floats, near: Floats, told: Norms, space: str) -> Flags:
    """bool (k,): whether vectors are as far from this one as told, as far as float32 goes.

    How many of the nearest a search finds says nothing of an index: that is as the data are.

    Args:
        near: float32 (k, dimension).
        told: float64 (k,).
    """
    if not len(near):
        return np.zeros(0, bool)
    one, others = vector.astype(np.float64), near.astype(np.float64)
    (norm,), norms = _norms(vector[None]), _norms(near)
    lost = np.zeros(len(near), bool)
    match space:
        case "l2":
            distance, scale = ((others - one) ** 2).sum(axis=1), norm**2 + norms**2
        case "cosine":
            with np.errstate(all="ignore"):
                distance, scale = 1 - others @ one / (norm * norms), np.ones(len(near))
            lost = ~(_is_normal(norms) & _is_normal(norm))
        case _:
            distance, scale = 1 - others @ one, np.maximum(1.0, norm * norms)
    fits: Flags = np.abs(distance - told) <= FAR * np.maximum(scale, np.finfo(np.float32).tiny)
    return fits | lost


def _unpacked(texts: Sequence[str]) -> Floats:
    vectors = [np.frombuffer(base64.b64decode(text), "<f4") for text in texts]
    return np.array(vectors, np.float32)


def _same(found: Floats, put: Floats, space: str) -> Flags:
    """bool (k,): as far as float32 goes; under cosine they were normalised in between."""
    if found.shape != put.shape:
        return np.zeros(len(put), bool)
    if space == "cosine":
        norms = _norms(put)
        difference = np.abs(found.astype(np.float64) - put).max(axis=1)
        same: Flags = (difference <= ROUNDING * norms) | ~_is_normal(norms)
    else:
        same = (found == put).all(axis=1)
    return same


def _norms(vectors: Floats) -> Norms:
    norms: Norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return norms


def _is_normal(norms: Norms) -> Flags:
    """Where a norm is no normal float32, Chroma's own arithmetic loses the vector."""
    limits = np.finfo(np.float32)
    normal: Flags = (norms >= limits.tiny) & (norms <= limits.max)
    return normal


def _some(chosen: Sequence[str], of: Sequence[str]) -> str:
    few = ", ".join(map(repr, chosen[:3])) + (", ..." if len(chosen) > 3 else "")
    return f"{len(chosen)} of {len(of)} records ({few})"
