"""Levels of a matrix and the planes that refine them, chosen together: what is read of a weight is good at every depth.

A weight is read down to any depth: its level alone, with the first plane, with two. Chosen one depth after the other,
each would be the best for itself and leave more than its cell to the next. Here all depths of an input are chosen at
once, to the least sum over the depths of their squared errors. The first two planes are trellis codes
(`kernels.linked`), so the rows of an input hang together: what is least of all is found by Viterbi's algorithm, its
states being those of both codes. A plane above them is two halves of a cell.

Inputs are chosen with feedback as in GPTQ (arXiv 2210.17323, algorithm 1), each depth by its own errors, and chosen
anew by coordinate descent, the other inputs being as they are.

Matrices lie as in `kernels.scalar`, [in, out], but for the order of the rows: a chain of rows is cut into LANES pieces
that are searched side by side (`places`), each from so far before its beginning that paths from any state have met.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.kernels.entropy.unbounded_levels import Floats, _jit
from bntools.kernels.stack import plane_trellis

TRELLIS, MOST = 2, 4
"""Planes that are trellis codes, and planes at most that are chosen together."""
LANES = 16
LAZY = 32
_WARM = 48  # rows before a piece: of 16, chains lose 0.05 dB
_PAIRS = 16  # moves of both codes
_FAR = np.float32(1e30)


def _machine() -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int16]]:
    """Both codes as one: of each state [16] the states before it and the moves on the way [4, 16]; its newest bits."""
    before = [[] for _ in range(plane_trellis.STATES**2)]
    for state in range(plane_trellis.STATES**2):
        for bits in range(4):
            (one, a), (two, b) = (
                plane_trellis.step(s, u) for s, u in ((state // 4, bits >> 1), (state % 4, bits & 1))
            )
            before[4 * one + two].append((state, 4 * a + b, bits))
    states, moves, bits = (np.array([[way[i] for way in ways] for ways in before]).T for i in range(3))
    return states.astype(np.int32), moves.astype(np.int32), bits[0].astype(np.int16)


_BEFORE, _MOVES, _BITS = _machine()


def places(rows: int) -> NDArray[np.intp]:
    """The row of a chain at each place; places beyond its end repeat the last row."""
    length = -(-rows // LANES)
    at = np.arange(length * LANES)
    return np.minimum(at % LANES * length + at // LANES, rows - 1)


def place_of(rows: int) -> NDArray[np.intp]:
    """The place of each row of a chain."""
    length = -(-rows // LANES)
    return np.arange(rows) % length * LANES + np.arange(rows) // length


def feedback(
    targets: Sequence[Tensor], factors: Sequence[Tensor], steps: Floats, weights: Floats, scale: float,
    row_class: NDArray[np.int16], col_class: NDArray[np.int16], price: Floats,
) -> tuple[NDArray[np.int16], NDArray[np.int16], Floats]:  # fmt: skip
    """Levels and bits [in, places], and the weights of each depth in steps [depths, in, places].

    targets: [in, places] of each depth, up to 1 + MOST; factors: of each, upper U with H^-1 = U^T U. weights: of the
    depths' errors. scale, row_class, col_class and price as in `scalar.descend`. A code holds the bits of MOST planes,
    the first one's highest; those of planes beyond the depths mean nothing.
    """
    left, shape = [target.clone() for target in targets], targets[0].shape
    levels, bits = np.empty(shape, np.int16), np.empty(shape, np.int16)
    values = np.empty((len(left), *shape), np.float32)
    for start in range(0, shape[0], LAZY):
        stop = min(start + LAZY, shape[0])
        here = np.stack([rows[start:stop].numpy() for rows in left])
        factor = np.stack([factor[start:stop].numpy() for factor in factors])
        _feed(
            levels, bits, values, here, factor, start, stop, steps, _padded(weights), np.float32(1 / scale),
            row_class, col_class, price, _BEFORE, _MOVES, _BITS,
        )  # fmt: skip
        for rows, part, errors in zip(left, factors, here, strict=True):
            rows[stop:].addmm_(part[start:stop, stop:].T, torch.from_numpy(errors), alpha=-1)
    return levels, bits, values


def descend(
    levels: NDArray[np.int16], bits: NDArray[np.int16], values: Floats, gradients: Sequence[Tensor],
    hessian: Tensor, steps: Floats, weights: Floats, scale: float, row_class: NDArray[np.int16],
    col_class: NDArray[np.int16], price: Floats,
) -> None:  # fmt: skip
    """One round of coordinate descent, the last input first, in place.

    gradients: (x - W) H [in, places] of each depth, kept true; W may be another one at each. The rest as in `feedback`.
    sum_l weights[l] tr(E_l H E_l^T) + scale * price of the levels does not rise, but by what a piece's start may cost.
    """
    for stop in range(len(levels), 0, -LAZY):
        start = max(stop - LAZY, 0)
        changes, here = (
            values[:, start:stop].copy(),
            np.stack([part[start:stop].numpy() for part in gradients]),
        )
        _descend(
            levels, bits, values, here, hessian.numpy(), changes, start, stop, steps, _padded(weights),
            np.float32(1 / scale), row_class, col_class, price, _BEFORE, _MOVES, _BITS,
        )  # fmt: skip
        for gradient, change in zip(gradients, changes, strict=True):
            gradient.addmm_(hessian[:, start:stop], torch.from_numpy(change))


def _padded(weights: Floats) -> Floats:
    """Depths that are not there weigh nothing."""
    return np.concatenate([weights, np.zeros(1 + MOST - len(weights), np.float32)])


@_jit
def _halves(at, first, second, one, two):  # pragma: no cover - compiled
    """Least cost of the two planes above a place, and the bits that have it; first, second: what they want."""
    x, y, far, near = at - first, at - second, np.float32(1 / 16), np.float32(1 / 32)
    low, high = abs(y - far) - near, abs(y + far) - near
    down = one * (x - far) * (x - far) + two * low * low
    up = one * (x + far) * (x + far) + two * high * high
    bits = 2 * (up < down) + ((y + far if up < down else y - far) < 0)
    return min(up, down), bits


@_jit
def _edges(want, floor, local, price, kind, start, edges, room):  # pragma: no cover - compiled
    """The least cost of each pair of moves [16, LANES], over two levels and all bits above; of the places of a row.

    Pairs of moves lead to ten places an eighth of a step apart, from both levels to eighteen; what is above depends
    on the place alone. room: [2 + 8 + 18, LANES].
    """
    base, mid, beyond = room[:2], room[2:10], room[10:]
    for up in range(2):
        for lane in range(16):
            at = start + lane
            level = floor[at] + np.float32(up)
            away = level - want[0, at]
            base[up, lane] = local[0] * away * away + price[kind[at], min(abs(int(level)), 127)]
    for g in range(8):
        shift = np.float32(g) * np.float32(0.25) - np.float32(0.375)
        for lane in range(16):
            away = floor[start + lane] + shift - want[1, start + lane]
            mid[g, lane] = base[g // 4, lane] + local[1] * away * away
    for g in range(18):
        shift = np.float32(g) * np.float32(0.125) - np.float32(0.5625)
        for lane in range(16):
            at = start + lane
            place = floor[at] + shift
            away = place - want[2, at]
            above, _ = _halves(place, want[3, at], want[4, at], local[3], local[4])
            beyond[g, lane] = local[2] * away * away + above
    for pair in range(16):
        g = 2 * (pair // 4) + pair % 4
        for lane in range(16):
            lower = mid[pair // 4, lane] + beyond[g, lane]
            upper = mid[4 + pair // 4, lane] + beyond[g + 8, lane]
            edges[pair, 16 + lane] = min(lower, upper)


@_jit
def _step(now, new, edges, shift, before, moves, back):  # pragma: no cover - compiled
    """The best way into each state [16, LANES]; edges are those of the piece `16 - shift` before a lane's own."""
    for state in range(16):
        a, b, c, d = before[0, state], before[1, state], before[2, state], before[3, state]
        i, j, k, m = moves[0, state], moves[1, state], moves[2, state], moves[3, state]
        for lane in range(16):
            one, two = now[a, lane] + edges[i, lane + shift], now[b, lane] + edges[j, lane + shift]
            three, four = now[c, lane] + edges[k, lane + shift], now[d, lane] + edges[m, lane + shift]
            front, rear = min(one, two), min(three, four)
            first = np.int32(1) if two < one else np.int32(0)
            second = np.int32(3) if four < three else np.int32(2)
            new[state, lane] = min(front, rear)
            back[state, lane] = np.uint8(second if rear < front else first)


@_jit
def _path(edges, costs, back, before, moves, bits, found, pairs):  # pragma: no cover - compiled
    """The cheapest path of a chain from state 0: bits and pairs of moves [places]. edges: [length, 16, 2 LANES]."""
    length, warm = edges.shape[0], 0
    now, new = costs[0], costs[1]
    now[:] = np.float32(0)
    while warm * length < _WARM and warm < 15:
        warm += 1
    for piece in range(warm, -1, -1):  # how many pieces before its own a lane is in
        now[:, piece] = _FAR
        now[0, piece] = np.float32(0)  # the chain begins here
        for at in range(max(length * warm - _WARM, 0) if piece == warm and piece > 0 else 0, length):
            _step(now, new, edges[at], 16 - piece, before, moves, back[at if piece == 0 else length])
            now, new = new, now
            if at % 16 == 15:  # or the sums would leave float32's precision
                for lane in range(16):
                    least = now[0, lane]
                    for state in range(16):
                        least = min(least, now[state, lane])
                    for state in range(16):
                        now[state, lane] -= least
    state = 0
    for other in range(16):
        if now[other, 15] < now[state, 15]:
            state = other
    for lane in range(15, -1, -1):
        for at in range(length - 1, -1, -1):
            way = back[at, state, lane]
            found[at * 16 + lane] = bits[state]
            pairs[at * 16 + lane] = moves[way, state]
            state = before[way, state]


@_jit
def _choose(
    want, local, price, kind, before, moves, bits, rooms, levels, codes, values
):  # pragma: no cover - compiled
    """Levels, codes and values of an input: the least for what is wanted [5, places], at costs `local` [5]."""
    edges, costs, back, floor, pairs, room = rooms
    total = np.float32(0)
    for depth in range(5):
        total += local[depth]
    floor[:] = np.float32(0)
    for depth in range(5):
        share = local[depth] / total
        for at in range(floor.shape[0]):
            floor[at] += share * want[depth, at]
    for at in range(floor.shape[0]):
        floor[at] = np.floor(min(max(floor[at], np.float32(-32000)), np.float32(32000)))
    for at in range(edges.shape[0]):
        _edges(want, floor, local, price, kind, at * 16, edges[at], room)
    _path(edges, costs, back, before, moves, bits, codes, pairs)
    depths = values.shape[0]
    for at in range(floor.shape[0]):
        one = np.float32(pairs[at] // 4) * np.float32(0.25) - np.float32(0.375)
        two = one + np.float32(pairs[at] % 4) * np.float32(0.125) - np.float32(0.1875)
        level, least, above = floor[at], _FAR, 0
        for up in range(2):
            trial = floor[at] + np.float32(up)
            x, y, z = trial - want[0, at], trial + one - want[1, at], trial + two - want[2, at]
            rest, which = _halves(trial + two, want[3, at], want[4, at], local[3], local[4])
            cost = local[0] * x * x + price[kind[at], min(abs(int(trial)), 127)]
            cost = cost + local[1] * y * y + (local[2] * z * z + rest)
            if cost < least:
                level, least, above = trial, cost, which
        levels[at] = np.int16(level)
        codes[at] = np.int16(4 * codes[at] + above)
        values[0, at] = level
        if depths > 1:
            values[1, at] = level + one
        if depths > 2:
            values[2, at] = level + two
        place = level + two + np.float32((above >> 1) * 0.125 - 0.0625)
        if depths > 3:
            values[3, at] = place
        if depths > 4:
            values[4, at] = place + np.float32((above & 1) * 0.0625 - 0.03125)


@_jit
def _rooms(places):  # pragma: no cover - compiled
    length = places // 16
    edges = np.zeros((length, 16, 32), np.float32)
    costs, back = np.empty((2, 16, 16), np.float32), np.empty((length + 1, 16, 16), np.uint8)
    floor, pairs = np.empty(places, np.float32), np.empty(places, np.int16)
    return edges, costs, back, floor, pairs, np.empty((28, 16), np.float32)


@_jit
def _kinds(row_class, col_class, kind):  # pragma: no cover - compiled
    for at in range(kind.shape[0]):
        kind[at] = min(max(int(row_class[at]) + int(col_class), 0), 63)


@_jit
def _feed(
    levels, codes, values, targets, factors, start, stop, steps, weights, scale, row_class, col_class, price, before,
    moves, bits,
):  # fmt: skip  # pragma: no cover - compiled
    depths, places = targets.shape[0], targets.shape[2]
    rooms, kind, local = _rooms(places), np.empty(places, np.int32), np.zeros(5, np.float32)
    want, found = np.zeros((5, places), np.float32), np.empty((depths, places), np.float32)
    for at in range(start, stop):
        here, step = at - start, steps[at]
        for depth in range(depths):
            size = step / factors[depth, here, at]
            local[depth] = weights[depth] * size * size * scale
            for r in range(places):
                want[depth, r] = targets[depth, here, r] / step
        _kinds(row_class, col_class[at], kind)
        _choose(want, local, price, kind, before, moves, bits, rooms, levels[at], codes[at], found)
        for depth in range(depths):
            pivot = np.float32(1) / factors[depth, here, at]
            for r in range(places):
                values[depth, at, r] = found[depth, r]
                targets[depth, here, r] = (targets[depth, here, r] - found[depth, r] * step) * pivot
            for k in range(at + 1, stop):
                f = factors[depth, here, k]
                for r in range(places):
                    targets[depth, k - start, r] -= f * targets[depth, here, r]


@_jit
def _descend(
    levels, codes, values, gradients, hessian, changes, start, stop, steps, weights, scale, row_class, col_class, price,
    before, moves, bits,
):  # fmt: skip  # pragma: no cover - compiled
    depths, places = gradients.shape[0], gradients.shape[2]
    rooms, kind, local = _rooms(places), np.empty(places, np.int32), np.zeros(5, np.float32)
    want, found = np.zeros((5, places), np.float32), np.empty((depths, places), np.float32)
    for at in range(stop - 1, start - 1, -1):
        here, step = at - start, steps[at]
        curve = np.float32(1) / (hessian[at, at] * step)
        for depth in range(depths):
            local[depth] = weights[depth] * hessian[at, at] * step * step * scale
            for r in range(places):
                want[depth, r] = changes[depth, here, r] - gradients[depth, here, r] * curve
        _kinds(row_class, col_class[at], kind)
        _choose(want, local, price, kind, before, moves, bits, rooms, levels[at], codes[at], found)
        for depth in range(depths):
            for r in range(places):
                values[depth, at, r] = found[depth, r]
                changes[depth, here, r] = (found[depth, r] - changes[depth, here, r]) * step
            for k in range(start, at):
                h = hessian[at, k]
                for r in range(places):
                    gradients[depth, k - start, r] += h * changes[depth, here, r]
