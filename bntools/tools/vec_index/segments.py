"""Rows added to an index and taken out of it without training again; indices with the same maps joined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input, usage
from bntools.core.methods.vector_index import codes
from bntools.core.methods.vector_index.codes import Code, ProductCode
from bntools.core.methods.vector_index.exact import Vectors
from bntools.core.methods.vector_index.index import Cells, Indices, Second, VectorIndex, select
from bntools.kernels.vectors import product
from bntools.tools.vec_index.encoder import encode, trained


def add(index: VectorIndex, base: Vectors, threads: int = 1) -> VectorIndex:
    """The index with more rows, coded by what it was trained on; their ids go on from the highest."""
    if base.width != index.width:
        raise bad_input(
            f"the rows have {base.width} coordinates, the index {index.width}", "embed both with one encoder"
        )
    for start in range(0, base.rows, 8192):
        bad = ~np.isfinite(base.read(start, min(start + 8192, base.rows))).all(1)
        if bad.any():
            raise bad_input(f"row {start + int(np.argmax(bad))} holds NaN or infinity")
    return join(index, encode(base, trained(index), threads=threads))


def join(first: VectorIndex, other: VectorIndex) -> VectorIndex:
    """Both indices' rows in one. Raises BnError (exit 3) unless they were trained as one."""
    if not _same(first, other):
        raise bad_input(
            "the indices have maps or codes of their own", "join parts that one index was added to"
        )
    code: Code
    cells, norm2, second = None, None, None
    if first.cells is not None and other.cells is not None:
        cells = Cells(first.cells.centroids, np.concatenate([first.cells.cell, other.cells.cell]))
    if first.norm2 is not None and other.norm2 is not None:
        norm2 = np.concatenate([first.norm2, other.norm2])
    if first.second is not None and other.second is not None:
        second = Second(_concatenate(first.second.code, other.second.code), first.second.mean)
    if isinstance(first.code, ProductCode):
        words, factor = (np.concatenate(pair) for pair in zip(_by_row(first), _by_row(other), strict=True))
        code = _ordered(first.code, words, factor, cells)
    else:
        code = _concatenate(first.code, other.code)
    names = None
    if first.names is not None or other.names is not None:
        ids = _ids(first)
        names = np.concatenate(
            [ids, _ids(other) if other.names is not None else np.arange(len(other)) + ids.max(initial=-1) + 1]
        )
    joined = replace(first, code=code, cells=cells, norm2=norm2, second=second, names=names)
    return replace(joined, facts={**first.facts, "n": len(joined)})


def delete(index: VectorIndex, ids: Indices) -> VectorIndex:
    """The index without some ids; the others keep theirs. Raises BnError (exit 2) for an id that is not there."""
    own = _ids(index)
    missing = np.setdiff1d(ids, own)
    if len(missing):
        raise usage(f"id {missing[0]} is not in the index ({len(missing)} of {len(ids)} are not)")
    rows = np.flatnonzero(~np.isin(own, ids))
    if not len(rows):
        raise usage("nothing would be left", "build a new index")
    code: Code
    cells = None if index.cells is None else Cells(index.cells.centroids, index.cells.cell[rows])
    if isinstance(index.code, ProductCode):
        words, factor = _by_row(index)
        code = _ordered(index.code, words[rows], factor[rows], cells)
    else:
        code = select(index.code, rows)
    second = None if index.second is None else Second(select(index.second.code, rows), index.second.mean)
    norm2 = None if index.norm2 is None else index.norm2[rows]
    smaller = replace(index, code=code, cells=cells, norm2=norm2, second=second, names=own[rows])
    return replace(smaller, facts={**index.facts, "n": len(rows)})


def _ids(index: VectorIndex) -> Indices:
    return np.arange(len(index)) if index.names is None else index.names


def _same(first: VectorIndex, other: VectorIndex) -> bool:
    """Whether two indices code with the same maps, means and words."""
    one, two = trained(first), trained(other) if other.facts else None
    if two is None:  # just coded by the first
        return True
    flat = (_arrays(one), _arrays(two))
    return (one.metric, one.code, one.second) == (two.metric, two.code, two.second) and all(
        a.shape == b.shape and np.array_equal(a, b) for a, b in zip(*flat, strict=False)
    ) and len(flat[0]) == len(flat[1])  # fmt: skip


def _arrays(by: Any) -> list[NDArray[Any]]:
    own = [by.query_map, by.base_map, by.mean, by.centroids, by.second_mean]
    if by.book is not None:
        own += [by.book.words, by.book.groups.order, by.book.groups.start]
    return [a for a in own if a is not None]


def _by_row(index: VectorIndex) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Words [n, bytes] and length factors [n] in the order of the rows."""
    code = index.code
    assert isinstance(code, ProductCode)
    place = np.empty(len(index), np.int64)
    place[index.order] = np.arange(len(index))
    return product.from_blocks(code.blocks, len(code))[place], code.factors()[place]


def _ordered(code: ProductCode, words: NDArray[np.uint8], factor: Any, cells: Cells | None) -> ProductCode:
    """Words and factors by row as the code of an index, on the grid of `code`."""
    order = slice(None) if cells is None else np.argsort(cells.cell, kind="stable")
    levels = np.clip(np.rint((factor[order] - code.grid[0]) / code.grid[1]), 0, 255).astype(np.uint8)
    return replace(code, blocks=product.into_blocks(words[order]), factor=levels)


def _concatenate(one: Code, two: Code) -> Code:
    return codes.joined([one, two])  # type: ignore[list-item]
