"""The oracle of the closed forms: the accesses of an order, element by element, in a cache that replaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import usage
from bntools.tools.cost_attention.caches import ideal, queue
from bntools.tools.cost_attention.settings import Problem
from bntools.tools.cost_attention.traffic import Plan

LIMIT = 50_000_000
Ints = NDArray[np.int64]
Access = tuple[Ints, bool]


class Layout(NamedTuple):
    """First address of each array; the scores' one is there only in orders that write them."""

    q: int
    k: int
    v: int
    o: int
    row: int
    row2: int
    dq: int
    dk: int
    dv: int
    do: int
    s: int


def layout(p: Problem) -> Layout:
    queries, keys = p.rows * p.width, p.keys * p.width
    sizes = [queries, keys, keys, queries, p.rows, p.rows, queries, keys, keys, queries]
    return Layout(*map(int, np.cumsum([0, *sizes])))


def block(start: int, stride: int, rows: range, columns: range) -> Ints:
    """Addresses of a rectangle of an array [.., stride]."""
    return (start + np.arange(rows.start, rows.stop)[:, None] * stride
            + np.arange(columns.start, columns.stop)[None, :]).reshape(-1)  # fmt: skip


def parts(count: int, size: int, first: int = 0) -> Iterator[range]:
    """Blocks of `size` from `first` on."""
    for start in range(first, count, size):
        yield range(start, min(start + size, count))


def rows_accesses(p: Problem, plan: Plan) -> Iterator[Access]:
    """FlashAttention-2's order; scores, maxima and sums stay in scratch, the row's logarithm is written at the end."""
    at, whole = layout(p), range(p.width)
    for rows in parts(p.rows, plan.tile.rows):
        queries, outputs = (block(start, p.width, rows, whole) for start in (at.q, at.o))
        for columns in parts(p.visible(rows.stop), plan.tile.columns):
            yield queries, False
            yield block(at.k, p.width, columns, whole), False
            yield block(at.v, p.width, columns, whole), False
            yield outputs, True
        yield block(at.row, 1, rows, range(1)), True


def columns_accesses(p: Problem, plan: Plan) -> Iterator[Access]:
    """FlashAttention-1's order: outputs, maxima and sums are read and written at each visit."""
    at, whole = layout(p), range(p.width)
    for columns in parts(p.keys, plan.tile.columns):
        keys, values = (block(start, p.width, columns, whole) for start in (at.k, at.v))
        for rows in parts(p.rows, plan.tile.rows, p.first_row(columns.start)):
            yield keys, False
            yield values, False
            yield block(at.q, p.width, rows, whole), False
            outputs = block(at.o, p.width, rows, whole)
            numbers = np.concatenate([block(start, 1, rows, range(1)) for start in (at.row, at.row2)])
            for touched in (outputs, numbers):
                yield touched, False
                yield touched, True


def spilled_accesses(p: Problem, plan: Plan) -> Iterator[Access]:
    """Both tiled products, a column of each operand a step."""
    at, side = layout(p), plan.tile.rows
    for rows in parts(p.rows, side):
        numbers = np.concatenate([block(start, 1, rows, range(1)) for start in (at.row, at.row2)])
        for columns in parts(p.keys, side):
            scores = block(at.s, p.keys, rows, columns)
            for step in range(p.width):
                yield numbers, True
                yield block(at.q, p.width, rows, range(step, step + 1)), False
                yield block(at.k, p.width, columns, range(step, step + 1)), False
                yield scores, True
    for rows in parts(p.rows, side):
        numbers = np.concatenate([block(start, 1, rows, range(1)) for start in (at.row, at.row2)])
        for columns in parts(p.width, side):
            outputs = block(at.o, p.width, rows, columns)
            for step in range(p.keys):
                yield numbers, False
                yield block(at.s, p.keys, rows, range(step, step + 1)), False
                yield block(at.v, p.width, range(step, step + 1), columns), False
                yield outputs, True


def row_sums(p: Problem, size: int) -> Iterator[Access]:
    """The product of outputs and their gradients, summed over each row, before the backward orders."""
    at, whole = layout(p), range(p.width)
    for rows in parts(p.rows, size):
        yield block(at.o, p.width, rows, whole), False
        yield block(at.do, p.width, rows, whole), False
        yield block(at.row2, 1, rows, range(1)), True


def _rows_of(p: Problem, at: Layout, rows: range) -> list[Ints]:
    """Queries, gradients of the outputs, and both numbers of some rows."""
    whole = range(p.width)
    queries = [block(start, p.width, rows, whole) for start in (at.q, at.do)]
    return queries + [block(start, 1, rows, range(1)) for start in (at.row, at.row2)]


def backward_accesses(p: Problem, plan: Plan) -> Iterator[Access]:
    """One pass: keys outside, dQ read and written at each visit."""
    yield from row_sums(p, plan.tile.rows)
    at, whole = layout(p), range(p.width)
    for columns in parts(p.keys, plan.tile.columns):
        keys = [block(start, p.width, columns, whole) for start in (at.k, at.v)]
        gradients = [block(start, p.width, columns, whole) for start in (at.dk, at.dv)]
        for rows in parts(p.rows, plan.tile.rows, p.first_row(columns.start)):
            yield from ((piece, False) for piece in (*keys, *_rows_of(p, at, rows)))
            moved = block(at.dq, p.width, rows, whole)
            yield moved, False
            yield moved, True
            yield from ((piece, True) for piece in gradients)


def row_gradient_accesses(p: Problem, plan: Plan) -> Iterator[Access]:
    """The first of two passes: dQ with rows outside."""
    yield from row_sums(p, plan.tile.rows)
    at, whole = layout(p), range(p.width)
    for rows in parts(p.rows, plan.tile.rows):
        for columns in parts(p.visible(rows.stop), plan.tile.columns):
            yield from ((piece, False) for piece in _rows_of(p, at, rows))
            yield from ((block(start, p.width, columns, whole), False) for start in (at.k, at.v))
            yield block(at.dq, p.width, rows, whole), True


def column_gradient_accesses(p: Problem, plan: Plan) -> Iterator[Access]:
    """The second: dK and dV with keys outside."""
    at, whole = layout(p), range(p.width)
    for columns in parts(p.keys, plan.tile.columns):
        for rows in parts(p.rows, plan.tile.rows, p.first_row(columns.start)):
            yield from ((block(start, p.width, columns, whole), False) for start in (at.k, at.v))
            yield from ((piece, False) for piece in _rows_of(p, at, rows))
            yield from ((block(start, p.width, columns, whole), True) for start in (at.dk, at.dv))


ORDERS: dict[str, Callable[[Problem, Plan], Iterator[Access]]] = {
    "rows": rows_accesses, "columns": columns_accesses, "spilled": spilled_accesses,
    "backward": backward_accesses, "dq": row_gradient_accesses, "dkdv": column_gradient_accesses,
}  # fmt: skip


def scratch(p: Problem, plan: Plan) -> int:
    """Elements of a plan's tile that have no address: scores, and of the rows' numbers those not written."""
    r, c = plan.tile
    own = {"rows": r * c + r, "columns": r * c, "spilled": 0}
    return own.get(plan.name, 3 * r * c)


def accesses(p: Problem, plan: Plan) -> int:
    """How many accesses the simulation of a plan has."""
    if plan.parts:
        return sum(accesses(p, part) for part in plan.parts)
    r, c = plan.tile
    down, across = -(-p.rows // r), -(-p.keys // c)
    if plan.name == "spilled":
        inner = p.width * (p.rows * p.keys + across * 3 * p.rows + down * p.keys)
        wide = -(-p.width // r)
        return inner + p.keys * (p.rows * p.width + wide * 3 * p.rows + down * p.width)
    once = across * 2 * p.rows * p.width + down * 2 * p.keys * p.width + 6 * across * p.rows
    return once * {"backward": 2, "dq": 2, "dkdv": 2}.get(plan.name, 1)


def simulate(p: Problem, plan: Plan, policy: str, line: int = 1) -> int:
    """Elements that a cache of the problem's memory moves under `lru`, `fifo` or `ideal` replacement.

    A first write allocates without a fetch; what was written is written back when it leaves. line: elements of a
    cache line. Raises BnError (exit 2) for an order without a simulation, or one of over 5e7 accesses.
    """
    if plan.parts:
        return sum(simulate(p, part, policy, line) for part in plan.parts)
    if plan.name not in ORDERS:
        raise usage(f"order {plan.name} is not simulated", f"simulated are {', '.join(ORDERS)}")
    count = accesses(p, plan)
    if count > LIMIT:
        raise usage(
            f"the simulation has {count:,} accesses, more than {LIMIT:,}", "a smaller --seq or --head-dim"
        )
    pieces = list(ORDERS[plan.name](p, plan))
    addresses = np.concatenate([piece for piece, _ in pieces]) // line
    writes = np.concatenate([np.full(len(piece), write) for piece, write in pieces])
    lines = int(addresses.max()) + 1
    room = max(1, (plan.resident - scratch(p, plan)) // line)
    if policy == "ideal":
        return int(ideal(addresses, writes, lines, room)) * line
    return int(queue(addresses, writes, lines, room, policy == "lru")) * line
