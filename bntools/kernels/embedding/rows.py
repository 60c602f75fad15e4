"""The inner loops of embedding tables: chunks of one flat array are gathered, get gradients, and take Adam's step.

A field's value v has K chunks of c numbers; chunk j starts at starts[v, j] of the flat array. Everything is float32.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Ids = NDArray[np.int32]
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam as its paper has it


@numba.njit(cache=True, nogil=True)
def gather(flat: Floats, starts: Ints, ids: Ids, c: int, out: Floats, first: int) -> None:
    """out[r, first + j c : ...] = the j-th chunk of value ids[r]."""
    for r in range(len(ids)):
        for j in range(starts.shape[1]):
            start, at = starts[ids[r], j], first + j * c
            for k in range(c):
                out[r, at + k] = flat[start + k]


@numba.njit(cache=True, nogil=True)
def scatter(gradient: Floats, starts: Ints, ids: Ids, c: int, g: Floats, first: int) -> None:
    """gradient of the flat array += g [rows, width], the gradient of what `gather` gave; row by row, in order."""
    for r in range(len(ids)):
        for j in range(starts.shape[1]):
            start, at = starts[ids[r], j], first + j * c
            for k in range(c):
                gradient[start + k] += g[r, at + k]


@numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def adam(x: Floats, g: Floats, m: Floats, v: Floats, decay: float, rate: float, step: int) -> None:
    """One step of Adam on the loss plus decay / 2 |x|^2 over all entries; the gradient is set to 0 for the next."""
    b1, b2 = np.float32(BETA1), np.float32(BETA2)
    a1, a2 = np.float32(1 - BETA1), np.float32(1 - BETA2)
    scale = np.float32(rate / (1 - BETA1**step))
    root = np.float32(1 / (1 - BETA2**step))
    weight, tiny = np.float32(decay), np.float32(EPSILON)
    for i in range(len(x)):
        slope = g[i] + weight * x[i]
        m[i] = b1 * m[i] + a1 * slope
        v[i] = b2 * v[i] + a2 * slope * slope
        x[i] -= scale * m[i] / (np.sqrt(v[i] * root) + tiny)
        g[i] = np.float32(0)


@numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def lazy_adam(
    x: Floats, g: Floats, m: Floats, v: Floats, touched: Ints, c: int, decay: float, rate: float, step: int
) -> None:  # fmt: skip
    """The same for the chunks that start at touched * c alone, whose moments stand still while nobody touches them."""
    for row in touched:
        at = row * c
        adam(x[at : at + c], g[at : at + c], m[at : at + c], v[at : at + c], decay, rate, step)


@numba.njit(cache=True, nogil=True)
def decay_rows(x: Floats, last: Ints, rows: Ints, c: int, factor: float, step: int) -> None:
    """Plain gradient descent's lazy decay: each row is multiplied by factor^(steps it missed), and is up to date."""
    for row in rows:
        shrink = np.float32(factor ** (step - last[row]))
        last[row] = step
        for i in range(row * c, row * c + c):
            x[i] *= shrink
