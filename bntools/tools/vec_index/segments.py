"""Rows added to an index and taken out of it without touching the others; segments and indices joined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input, usage
from bntools.core.methods.vector_index import codes
from bntools.core.methods.vector_index.codes import Code, ProductCode
from bntools.core.methods.vector_index.exact import Vectors
from bntools.core.methods.vector_index.index import Bits, Cells, Indices, Second, VectorIndex, select
from bntools.kernels.vectors import product
from bntools.tools.vec_index.encoder import encode, trained

_CHECKED = 8192


def add(index: VectorIndex, base: Vectors, ids: Indices | None = None, threads: int = 1) -> VectorIndex:
    """The index with one more segment, its rows coded by what the index was trained on.

    ids: what to call them; None: numbers that go on from the highest. Raises BnError (exit 3) for rows of another
    width, NaN or infinity, a zero row under cos, ids that the index has.
    """
    more = segment(index, base, ids, threads)
    if ids is None and any(part.names is not None for part in index.parts):
        more = replace(more, names=np.arange(base.rows) + index.ids.max() + 1)
    return replace(index, segments=(*index.segments, more))


def segment(index: VectorIndex, base: Vectors, ids: Indices | None = None, threads: int = 1) -> VectorIndex:
    """More rows as an index of their own with the maps and words of `index`, numbered from 0 where ids are None."""
    if base.width != index.width:
        raise bad_input(
            f"the rows have {base.width} coordinates, the index {index.width}", "embed both with one encoder"
        )
    for start in range(0, base.rows, _CHECKED):
        rows = base.read(start, min(start + _CHECKED, base.rows))
        bad = ~np.isfinite(rows).all(1)
        if bad.any():
            raise bad_input(f"row {start + int(np.argmax(bad))} holds NaN or infinity")
        if index.metric == "cos" and not rows.any(1).all():
            raise bad_input(f"row {start + int(np.argmin(rows.any(1)))} is zero and has no direction")
    if ids is not None:
        _check_apart(index.ids[_alive(index)], ids)
    return replace(encode(base, trained(index), threads=threads), names=ids, facts=index.facts)


def delete(index: VectorIndex, ids: Indices) -> VectorIndex:
    """The index with the rows of some ids marked as taken out. Raises BnError (exit 2) for an id that is not there."""
    alive = _alive(index)
    missing = np.setdiff1d(ids, index.ids[alive])
    if len(missing):
        raise usage(f"id {missing[0]} is not in the index ({len(missing)} of {len(ids)} are not)")
    alive &= ~np.isin(index.ids, ids)
    if not alive.any():
        raise usage("nothing would be left", "build a new index")
    parts = [
        replace(part, dead=_bits(~alive[first : first + len(part.code)]), segments=())
        for first, part in zip(index.first_rows[:-1], index.parts, strict=True)
    ]
    return replace(parts[0], segments=tuple(parts[1:]))


def join(indices: list[VectorIndex]) -> VectorIndex:
    """The rows of all parts of all indices as one part, without those taken out.

    Raises BnError (exit 3) unless the indices have the same maps and words, or where two call rows by the same ids.
    A graph does not survive; the command builds another.
    """
    first = indices[0]
    if not all(_same(first, other) for other in indices[1:]):
        raise bad_input(
            "the indices have maps or codes of their own", "join parts that one index was added to"
        )
    parts = [part for index in indices for part in index.parts]
    names = _names(indices)
    cells, norm2, second = None, None, None
    if first.cells is not None:
        own = [part.cells.cell[part.alive] for part in parts if part.cells is not None]
        cells = Cells(first.cells.centroids, np.concatenate(own))
    if first.norm2 is not None:
        norm2 = np.concatenate([part.norm2[part.alive] for part in parts if part.norm2 is not None])
    if first.second is not None:
        finer = [(part, part.second.code) for part in parts if part.second is not None]
        second = Second(_chosen(finer, first.facts["second"], first.width), first.second.mean)
    code: Code
    if isinstance(first.code, ProductCode):
        words, factor = (np.concatenate(pair) for pair in zip(*map(_by_row, parts), strict=True))
        order = np.arange(len(words)) if cells is None else np.argsort(cells.cell, kind="stable")
        code = codes.product_code(
            words, factor, first.code.book, width=first.code.width, grid=first.code.grid, order=order
        )
    else:
        code = _chosen([(part, part.code) for part in parts], first.facts["code"], first.query_map.shape[1])
    return replace(
        first,
        code=code,
        cells=cells,
        norm2=norm2,
        second=second,
        names=names,
        dead=None,
        segments=(),
        graph=None,
    )


def counted(index: VectorIndex) -> VectorIndex:
    """The index with what its facts say of its rows put right."""
    counts: dict[str, Any] = {
        "n": len(index),
        "segments": len(index.parts),
        "deleted": index.rows - len(index),
    }
    if index.graph is None:
        counts |= {"ef": None, "graph_bytes_per_vector": 0}
    return replace(index, facts={**index.facts, **counts})


def _names(indices: list[VectorIndex]) -> Indices | None:
    """Ids of the rows that are there still; None where they are their numbers."""
    total: Indices | None = None
    numbered = True
    for index in indices:
        own = index.ids[_alive(index)]
        if total is not None and all(part.names is None for part in index.parts):
            own = own + total.max(initial=-1) + 1
        elif total is not None:
            _check_apart(total, own)
        numbered &= all(part.names is None and part.dead is None for part in index.parts)
        total = own if total is None else np.concatenate([total, own])
    return None if numbered else total


def _check_apart(have: Indices, more: Indices) -> None:
    both = np.intersect1d(have, more)
    if len(both):
        raise bad_input(f"id {both[0]} is in the index already ({len(both)} of {len(more)} are)")


def _alive(index: VectorIndex) -> NDArray[np.bool_]:
    """Whether each row of all parts is there still."""
    return np.concatenate([part.alive for part in index.parts])


def _bits(dead: NDArray[np.bool_]) -> Bits | None:
    return np.packbits(dead, bitorder="little") if dead.any() else None


def _same(first: VectorIndex, other: VectorIndex) -> bool:
    """Whether two indices code with the same maps, means and words."""
    one, two = trained(first), trained(other)
    flat = (_arrays(one), _arrays(two))
    return (one.metric, one.code, one.second) == (two.metric, two.code, two.second) and all(
        a.shape == b.shape and np.array_equal(a, b) for a, b in zip(*flat, strict=False)
    ) and len(flat[0]) == len(flat[1])  # fmt: skip


def _arrays(by: Any) -> list[NDArray[Any]]:
    own = [by.query_map, by.base_map, by.mean, by.centroids, by.second_mean]
    if by.book is not None:
        own += [by.book.words, by.book.groups.order, by.book.groups.start]
    return [a for a in own if a is not None]


def _by_row(part: VectorIndex) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Words [n, bytes] and length factors [n] of the rows that are there still, in their order."""
    code = part.code
    assert isinstance(code, ProductCode)
    place = np.empty(len(code), np.int64)
    place[part.order] = np.arange(len(code))
    place = place[part.alive]
    return product.from_blocks(code.blocks, len(code))[place], code.factors[place]


def _chosen(parts: list[tuple[VectorIndex, Code]], name: str, width: int) -> Code:
    """Plain codes of the rows that are there still, one after the other."""
    own = [select(code, np.flatnonzero(part.alive)) for part, code in parts]
    columns = [code.tensors() for code in own]
    joined = {n: np.concatenate([c[n] for c in columns]) for n in columns[0]}
    return codes.plain_from(joined, name, width)
