"""Elements that attention moves between slow and fast memory, order by order, exactly; and how large tiles may be.

Derived here for each order and checked by simulating its accesses in a cache. N rows, L keys, width d; the fast memory
holds M elements. Saha and Ye (arXiv 2402.07443) bound any order: N^2 d^2 / M from M = d^2 on, N^2 d / sqrt(M) below,
up to constants that they do not give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from bntools.core.errors import bad_input
from bntools.tools.cost_attention.settings import Problem


class Tile(NamedTuple):
    """Rows of queries and columns of keys that are held at once."""

    rows: int
    columns: int


class Plan(NamedTuple):
    """An order with its tile: elements moved, multiply-adds, and elements of fast memory it fills.

    parts: passes one after the other, each with a tile of its own.
    """

    name: str
    tile: Tile
    moved: int
    products: int
    resident: int
    parts: tuple[Plan, ...] = ()


def ceil(count: int, size: int) -> int:
    return -(-count // size)


def standard(p: Problem) -> Plan:
    """Scores and probabilities each written and read whole, as the FlashAttention paper counts: 4 N L + 2 (N + L) d.

    Its products are taken to read every operand once, for which the fast memory would have to hold one of them.
    """
    return Plan("standard", Tile(1, 1), p.compulsory + 4 * p.pairs, 2 * p.pairs * p.width, 4)


def outer_rows(p: Problem, tile: Tile) -> Plan:
    """FlashAttention-2's order: a block of rows stays, keys and values pass: 2 N d + N + 2 L d ceil(N / Br).

    Keys and values that fit in one tile are read once. Causal: a block of rows stops at the last key it may see.
    """
    moved = 2 * p.rows * p.width + p.rows + 2 * p.width * keys_visited(p, tile)
    return Plan("rows", tile, moved, 2 * p.pairs * p.width, outer_rows_resident(p, tile))


def outer_rows_resident(p: Problem, tile: Tile) -> int:
    """Queries, accumulated outputs, keys and values by stages, scores, and two numbers a row."""
    r, c = tile
    wide = r * p.width + r * c + 2 * r
    return math.ceil(r * p.width + p.wide * wide + 2 * p.stages * c * p.width)


def outer_columns(p: Problem, tile: Tile) -> Plan:
    """FlashAttention-1's order: keys and values stay, outputs pass: 2 L d + ceil(L / Bc) (3 N d + 4 N)."""
    moved = 2 * p.keys * p.width + rows_visited(p, tile) * (3 * p.width + 4)
    return Plan("columns", tile, moved, 2 * p.pairs * p.width, outer_rows_resident(p, tile))


def rows_visited(p: Problem, tile: Tile) -> int:
    """Rows that blocks of keys meet, summed over the blocks."""
    return sum(p.rows - p.first_row(start) for start in range(0, p.keys, tile.columns))


def keys_visited(p: Problem, tile: Tile) -> int:
    """Keys that blocks of rows meet, summed over the blocks; those that fit in one tile are met once."""
    if tile.columns >= p.keys:
        return p.keys
    return sum(p.visible(min(start + tile.rows, p.rows)) for start in range(0, p.rows, tile.rows))


def products_spilled(p: Problem, tile: Tile) -> Plan:
    """Two tiled matrix products with the scores in slow memory, for M below d^2.

    A b x b tile of scores is made column by column of Q and K, then of outputs column by column of P and row by row
    of V: 2 N L d / b, and N L for writing, N L ceil(d / b) for reading scores; each row's maximum and sum with them.
    """
    b = tile.rows
    down, across, wide = ceil(p.rows, b), ceil(p.keys, b), ceil(p.width, b)
    scores = across * p.rows * p.width + down * p.keys * p.width + p.rows * p.keys + 2 * p.rows
    outputs = wide * p.rows * p.keys + 2 * p.rows + down * p.keys * p.width + p.rows * p.width
    resident = math.ceil(p.wide * (b * b + 2 * b) + 2 * b)
    return Plan("spilled", tile, scores + outputs, 2 * p.rows * p.keys * p.width, resident)


def backward_columns(p: Problem, tile: Tile) -> Plan:
    """One pass, keys outside, dQ read and written again: 2 N d + N, 4 L d, ceil(L / Bc) (4 N d + 2 N)."""
    first = 2 * p.rows * p.width + p.rows
    moved = first + 4 * p.keys * p.width + rows_visited(p, tile) * (4 * p.width + 2)
    return Plan("backward", tile, moved, 5 * p.pairs * p.width, backward_resident(p, tile))


def backward_resident(p: Problem, tile: Tile) -> int:
    """K, V and Q, dO of the tile; dK, dV, dQ, three tiles of scores and two numbers a row as accumulators."""
    r, c = tile
    return math.ceil(2 * (r + c) * p.width + p.wide * ((2 * c + r) * p.width + 3 * r * c + 2 * r))


def gradients_of_rows(p: Problem, tile: Tile) -> Plan:
    """The first of two passes: row sums, then dQ with rows outside: 5 N d + 3 N + 2 L d ceil(N / Br)."""
    moved = 5 * p.rows * p.width + 3 * p.rows + 2 * p.width * keys_visited(p, tile)
    return Plan("dq", tile, moved, 3 * p.pairs * p.width, rows_resident(p, tile))


def gradients_of_columns(p: Problem, tile: Tile) -> Plan:
    """The second: dK and dV with keys outside: 4 L d + ceil(L / Bc) (2 N d + 2 N)."""
    visited = p.rows if tile.rows >= p.rows else rows_visited(p, tile)
    moved = 4 * p.keys * p.width + visited * (2 * p.width + 2)
    return Plan("dkdv", tile, moved, 4 * p.pairs * p.width, columns_resident(p, tile))


def backward_twice(p: Problem, first: Tile, second: Tile) -> Plan:
    """Two passes without sums across blocks, so the same bits every time: seven products for five."""
    parts = gradients_of_rows(p, first), gradients_of_columns(p, second)
    moved, products = sum(part.moved for part in parts), sum(part.products for part in parts)
    return Plan("backward-twice", first, moved, products, max(part.resident for part in parts), parts)


def rows_resident(p: Problem, tile: Tile) -> int:
    """Q, dO and K, V of the tile; dQ, three tiles of scores and two numbers a row as accumulators."""
    r, c = tile
    return math.ceil(2 * (r + c) * p.width + p.wide * (r * p.width + 3 * r * c + 2 * r))


def columns_resident(p: Problem, tile: Tile) -> int:
    """K, V and Q, dO of the tile; dK, dV, three tiles of scores and two numbers a row as accumulators."""
    r, c = tile
    return math.ceil(2 * (r + c) * p.width + p.wide * (2 * c * p.width + 3 * r * c + 2 * r))


def split_keys(p: Problem, splits: int) -> Plan:
    """Decoding: few rows, the keys divided among `splits` workers: 2 L d, and an output of each twice."""
    partial = p.rows * (p.width + 2)
    moved = 2 * p.keys * p.width + splits * p.rows * p.width
    moved += 2 * splits * partial + p.rows * p.width if splits > 1 else p.rows * p.width
    resident = outer_rows_resident(p, Tile(p.rows, 1))
    return Plan("split", Tile(p.rows, ceil(p.keys, splits)), moved, 2 * p.pairs * p.width, resident)


def most_rows(p: Problem, resident: Callable[[Problem, Tile], int]) -> Tile | None:
    """The tile of most rows, then of most columns, that fits; None where none does."""
    rows = _most(p, p.rows, lambda size: resident(p, Tile(size, min(p.granule, p.keys))))
    if not rows:
        return None
    columns = _most(p, p.keys, lambda size: resident(p, Tile(rows, size)))
    return Tile(rows, columns) if columns else None


def most_columns(p: Problem, resident: Callable[[Problem, Tile], int]) -> Tile | None:
    """The tile of most columns, then of most rows."""
    columns = _most(p, p.keys, lambda size: resident(p, Tile(min(p.granule, p.rows), size)))
    if not columns:
        return None
    rows = _most(p, p.rows, lambda size: resident(p, Tile(size, columns)))
    return Tile(rows, columns) if rows else None


def _most(p: Problem, limit: int, size_of: Callable[[int], int]) -> int:
    """The largest size up to `limit` in steps of the granule, `limit` itself included; 0 where none fits."""
    if size_of(limit) <= p.memory:
        return limit
    low, high = 0, ceil(limit, p.granule)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size_of(middle * p.granule) <= p.memory else (low, middle)
    return low * p.granule


def spilled_tile(p: Problem) -> Tile | None:
    """The largest square tile of scores."""
    side = min(max(p.rows, p.keys), math.isqrt(p.memory) + 1)
    while side and math.ceil(p.wide * (side * side + 2 * side) + 2 * side) > p.memory:
        side -= 1
    return Tile(side, side) if side else None


def forward_plans(p: Problem) -> list[Plan]:
    """Every forward order that fits, FlashAttention-2's first; BnError (exit 3) where no tile of its fits."""
    plans = []
    tile = most_rows(p, outer_rows_resident)
    if tile is not None:
        plans.append(outer_rows(p, tile))
    tile = most_columns(p, outer_rows_resident)
    if tile is not None:
        plans.append(outer_columns(p, tile))
    tile = spilled_tile(p)
    if tile is not None:
        plans.append(products_spilled(p, tile))
    if not plans:
        raise too_small(p, math.ceil(5 * p.wide))
    return plans


def backward_plans(p: Problem) -> list[Plan]:
    """Every backward order that fits; BnError (exit 3) where none does."""
    plans = []
    tile = most_columns(p, backward_resident)
    if tile is not None:
        plans.append(backward_columns(p, tile))
    first, second = most_rows(p, rows_resident), most_columns(p, columns_resident)
    if first is not None and second is not None:
        plans.append(backward_twice(p, first, second))
    if not plans:
        size = min(p.granule, p.rows), min(p.granule, p.keys)
        raise too_small(p, rows_resident(p, Tile(*size)))
    return plans


def too_small(p: Problem, least: int) -> Exception:
    return bad_input(f"{p.memory} elements of fast memory hold no tile", f"--sram {least}el at least")
