"""Dependent scalar quantization: a column's levels come from two interleaved sets that a state machine switches.

The scheme of video coding's trellis-coded quantization (VVC; neural network coding, ISO/IEC 15938-17) with 8 states:
in units of the half step, states that use set 0 offer the even multiples 2k, the others 2k - sgn k; the parity of k
moves the state. The denser union is reached at the rate of one set: 1.1 dB of granular gain on a uniform source.
Without a trellis levels are plain multiples of the step.

The search here also takes feedback down the column: what is lost in a row moves the targets of the rows below it,
along each surviving path by its own errors, so that a column is quantized under a metric e^T A e whose A need not be
diagonal. With A the second moment of the output's gradients this is the output side of two-sided (Kronecker) GPTQ;
the input side is the ordinary feedback from column to column, which `columns` does as well.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NEXT = np.array([[0, 2], [5, 7], [1, 3], [6, 4], [2, 0], [4, 6], [3, 1], [7, 5]], dtype=np.int64)
SETS = np.array([1, 0, 0, 1, 1, 1, 0, 0], dtype=np.int64)
HALF_STEP = 0.56  # of the step of plain rounding that gives the same rate
BLOCK = 64
"""Rows after which the best path is fixed with feedback, which costs in proportion: 0.09 dB are lost."""
DEEP = 4096  # the same without feedback: 24 bytes a row of paths to trace back
MACHINE = np.concatenate([NEXT, SETS[:, None]], axis=1)  # [states, 3]: next for even and odd levels, set
_DENSE = SETS.astype(np.float32)
# the machine in three registers, eight bits a state, a state being the place of its bits: no look-up to wait for
_EVEN, _ODD, _SET = (
    np.uint64(sum(int(factor * entry) << 8 * state for state, entry in enumerate(entries)))
    for entries, factor in ((NEXT[:, 0], 8), (NEXT[:, 1], 8), (SETS, 1))
)

# Each state is entered from two, by a level of a parity: [states, 2].
_ENTRY = [[(s, p) for s in range(8) for p in range(2) if NEXT[s, p] == state] for state in range(8)]
_FROM = np.array([[pair[0] for pair in entry] for entry in _ENTRY], dtype=np.int64)
_PARITY = np.array([[pair[1] for pair in entry] for entry in _ENTRY], dtype=np.int64)


@numba.njit(cache=True, nogil=True)
def _subtract(target, factor, values):  # pragma: no cover - compiled
    for k in range(target.shape[0]):
        target[k] -= factor * values[k]


@numba.njit(cache=True, nogil=True)
def _multiple(k, dense):  # pragma: no cover - compiled
    """Half steps that index k stands for: 2k, in set 1 (dense) 2k - sgn k."""
    return np.float32(2) * k - dense * (np.float32(k > 0) - np.float32(k < 0))


@numba.njit(cache=True, nogil=True)
def _nearest(s, target, inverse, found):  # pragma: no cover - compiled
    """In state s, the index of either parity (found[0, s] even, found[1, s] odd) nearest to the target."""
    one, half = np.float32(1), np.float32(0.5)
    x = min(max(target * inverse, np.float32(-32000)), np.float32(32000))
    size = abs(x)
    place = (size + _DENSE[s]) * half
    inner = _DENSE[s] * np.float32(size < half)  # set 1 rounds to 0 below half a half step
    near = np.floor(place + half) * (one - inner)
    # the even ones of set 1 next to 1 are 0 and 3, which meet at 1.5 and not at 1
    middle = near + _DENSE[s] * np.float32(near == one) * np.float32(0.25)
    up = max(np.float32(place > middle), inner)
    other = near + np.float32(2) * up - one
    sign = one if x >= 0 else -one
    parity = near - np.float32(2) * np.floor(near * half)
    found[0, s] = sign * (near * (one - parity) + other * parity)
    found[1, s] = sign * (near * parity + other * (one - parity))


@numba.njit(cache=True, nogil=True)
def _viterbi(target, unit, weight, feedback, start, levels, work):  # pragma: no cover - compiled
    """Levels of a block of rows from a start state: those of the cheapest path.

    target, unit (half step times shrink), weight (of the error), levels: [rows]. feedback [rows, rows]: what the
    error of a row moves in the rows below, carried along every surviving path; or empty. Without feedback the path
    is the best there is; with it each state keeps the path that was best so far.
    """
    now, new, even_odd, costs, errors, index, back, lost, moved, moving = work
    count = target.shape[0]
    fed = feedback.shape[0] > 0
    for s in range(8):
        now[s] = np.float32(np.inf)
    now[start] = 0
    for i in range(count if fed else 1):
        for s in range(8):
            moved[i, s] = np.float32(0)
    for i in range(count):
        u, w = unit[i], weight[i]
        inverse = np.float32(1) / u
        move = moved[i if fed else 0]
        for s in range(8):
            _nearest(s, target[i] - move[s], inverse, even_odd)
        for p in range(2):
            for s in range(8):
                e = target[i] - move[s] - _multiple(even_odd[p, s], _DENSE[s]) * u
                errors[p, s] = e
                costs[p, s] = now[s] + e * w * (e * w)
        for s in range(8):
            a, b = _FROM[s, 0], _FROM[s, 1]
            take = costs[_PARITY[s, 0], a] <= costs[_PARITY[s, 1], b]
            state, parity = (a, _PARITY[s, 0]) if take else (b, _PARITY[s, 1])
            new[s] = costs[parity, state]
            index[i, s] = np.int16(even_odd[parity, state])
            lost[s] = errors[parity, state]
            back[i, s] = state
        for s in range(8):
            now[s] = new[s]
        if fed:
            _carry(moved[i + 1 : count], feedback[i, i + 1 : count], back[i], lost, moving[i + 1 : count])
            moved, moving = moving, moved
    state = 0
    for s in range(1, 8):
        if now[s] < now[state]:
            state = s
    for i in range(count - 1, -1, -1):
        levels[i] = index[i, state]
        state = back[i, state]


@numba.njit(cache=True, nogil=True)
def _carry(moved, feedback, back, lost, moving):  # pragma: no cover - compiled
    """The targets' moves along each path: those of the path it continues, and its own last error's."""
    b0, b1, b2, b3, b4, b5, b6, b7 = back[0], back[1], back[2], back[3], back[4], back[5], back[6], back[7]
    l0, l1, l2, l3, l4, l5, l6, l7 = lost[0], lost[1], lost[2], lost[3], lost[4], lost[5], lost[6], lost[7]
    for k in range(moved.shape[0]):
        f = feedback[k]
        old, out = moved[k], moving[k]
        out[0] = old[b0] + f * l0
        out[1] = old[b1] + f * l1
        out[2] = old[b2] + f * l2
        out[3] = old[b3] + f * l3
        out[4] = old[b4] + f * l4
        out[5] = old[b5] + f * l5
        out[6] = old[b6] + f * l6
        out[7] = old[b7] + f * l7


@numba.njit(cache=True, nogil=True)
def _column(moved, unit, weight, feedback, block, levels, value, work):  # pragma: no cover - compiled
    """Levels and the values they stand for [rows] of one column; `moved`, the targets, takes the feedback.

    block: rows of a trellis that are decided together; 0, plain rounding.
    """
    trellis, block = block > 0, max(block, 1)
    state = 0
    for begin in range(0, moved.shape[0], block):
        end = min(begin + block, moved.shape[0])
        here = levels[begin:end]
        inner = feedback[begin:end, begin:end]
        if trellis:
            _viterbi(moved[begin:end], unit[begin:end], weight[begin:end], inner, state, here, work)
            for i in range(begin, end):
                value[i] = _multiple(np.float32(levels[i]), _DENSE[state]) * unit[i]
                state = NEXT[state, levels[i] & 1]
                if inner.shape[0] > 0:
                    _subtract(moved[i + 1 : end], moved[i] - value[i], feedback[i, i + 1 : end])
        else:
            level = min(max(np.rint(moved[begin] / unit[begin]), np.float32(-32767)), np.float32(32767))
            here[0] = np.int16(level)
            value[begin] = level * unit[begin]
        if inner.shape[0] > 0:
            for i in range(begin, end):
                _subtract(moved[end:], moved[i] - value[i], feedback[i, end:])


@numba.njit(cache=True, nogil=True)
def _columns(
    targets, factor, row_unit, col_unit, shrink, weight, feedback, block, levels
):  # pragma: no cover
    rows = targets.shape[1]
    deep, fed = min(block, rows), min(block, rows) if feedback.shape[0] > 0 else 1
    unit, moved, value = np.empty(rows, np.float32), np.empty(rows, np.float32), np.empty(rows, np.float32)
    work = (
        np.empty(8, np.float32), np.empty(8, np.float32), np.empty((2, 8), np.float32),
        np.empty((2, 8), np.float32), np.empty((2, 8), np.float32), np.empty((deep, 8), np.int16),
        np.empty((deep, 8), np.int8), np.empty(8, np.float32), np.empty((fed, 8), np.float32),
        np.empty((fed, 8), np.float32),
    )  # fmt: skip
    for col in range(targets.shape[0]):
        for i in range(rows):
            unit[i] = row_unit[i] * col_unit[col] * shrink[col, i]
            moved[i] = targets[col, i]
        _column(moved, unit, weight, feedback, block, levels[col], value, work)
        for i in range(rows):
            targets[col, i] = (targets[col, i] - value[i]) / factor[col, col]
        for later in range(col + 1, targets.shape[0]):
            _subtract(targets[later], factor[col, later], targets[col])


def columns(
    targets: Floats, factor: Floats, row_unit: Floats, col_unit: Floats, shrink: Floats,
    weight: Floats, feedback: Floats, trellis: bool, levels: NDArray[np.int16], block: int | None = None,
) -> None:  # fmt: skip
    """Levels of a run of columns under GPTQ's feedback (arXiv 2210.17323, algorithm 1), one after the other.

    targets [cols, rows] is W^T in the order of coding; on return it holds each column's error divided by the pivot,
    which is what the columns after this run must be fed: targets_later -= factor[run, later]^T @ targets.
    factor [cols, cols]: the diagonal block of the upper U with H^-1 = U^T U. The value of a level is its multiple of
    row_unit [rows] * col_unit [cols] * shrink [cols, rows] (half steps on a trellis). weight [rows]: of the errors
    in the trellis' metric. feedback [rows, rows]: what an error moves in later rows (`row_feedback`), or [0, 0].
    block: rows of a column decided together, BLOCK with feedback and DEEP without by default.
    """
    rows = (block or (BLOCK if feedback.size else DEEP)) if trellis else 0
    _columns(targets, factor, row_unit, col_unit, shrink, weight, feedback, rows, levels)


def row_feedback(factor: Floats) -> tuple[Floats, Floats]:
    """Feedback [rows, rows], F_ik = U_ik / U_ii for k > i, and weights 1 / U_ii of a metric A^-1 = U^T U, U upper."""
    diagonal = factor.diagonal().astype(np.float32)
    return np.triu(factor / diagonal[:, None], 1).astype(np.float32), np.float32(1) / diagonal


@numba.njit(cache=True, nogil=True)
def _multiples(levels, trellis, out):  # pragma: no cover - compiled
    for col in range(levels.shape[0]):
        state = np.uint64(0)
        for row in range(levels.shape[1]):
            k = np.int32(levels[col, row])
            if trellis:
                sign = (k >> np.int32(31)) - (-k >> np.int32(31))
                out[col, row] = np.float32(2 * k - sign * np.int32((_SET >> state) & np.uint64(1)))
                odd = np.uint64(0) - np.uint64(k & 1)  # all bits or none: parities are no branch to predict
                state = ((_EVEN ^ ((_EVEN ^ _ODD) & odd)) >> state) & np.uint64(255)
            else:
                out[col, row] = np.float32(k)


def multiples(levels: NDArray[np.int16], trellis: bool) -> Floats:
    """What the levels [cols, rows] stand for in (half) steps, each column from the machine's first state."""
    out = np.empty(levels.shape, dtype=np.float32)
    _multiples(levels, trellis, out)
    return out


@numba.njit(cache=True, nogil=True)
def _scale(values, rows, cols, shrink, row_class, col_class):  # pragma: no cover - compiled
    for col in range(values.shape[0]):
        line, step, base = values[col], cols[col], np.int32(col_class[col])
        for row in range(line.shape[0]):  # 32 bits throughout, so that the loop is made of vectors
            found = min(max(np.int32(row_class[row]) + base, np.int32(0)), np.int32(63))
            line[row] *= rows[row] * step * shrink[np.uint32(found)]


def scale(
    values: Floats, rows: Floats, cols: Floats, shrink: Floats,
    row_class: NDArray[np.int16], col_class: NDArray[np.int16],
) -> None:  # fmt: skip
    """Multiply values [cols, rows] in place by rows [rows] * cols [cols] * shrink [64] of their class."""
    _scale(values, rows, cols, shrink, row_class, col_class)
