"""Steps and classes of matrices of unbounded levels, as the entropy coder counts them (bntools-entropy(5))."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.entropy import rans

Floats = NDArray[np.float32]
Ints = NDArray[np.int16]

OCTAVE = 8  # steps of a scale exponent in a factor of two: an error of 4 % at most in a step
CLASSES = 4  # classes in a factor of two of the mean level
MIDDLE = 24  # the class of a mean level of 1
LARGEST = 15_000  # level: beyond 16,000 the search of the trellis clips
_FIT = 1e-6  # of a step: the least mean level


def exponents(steps: Floats) -> Ints:
    """The nearest eighths of an octave."""
    return np.rint(OCTAVE * np.log2(np.maximum(steps, 1e-38))).astype(np.int16)


def coarsened(col: Ints, targets: Floats, rows: Floats) -> Ints:
    """Column exponents raised where levels would not be within 16 bits: inputs a thousand times the others ask for
    finer steps than that, and feedback still moves the targets. targets [in, out], rows [out]: steps."""
    finest = np.abs(targets / rows).max(1) / (LARGEST * 0.8)
    return np.maximum(col, exponents(finest) + np.int16(1))


def classes(targets: Floats, rows: Floats, cols: Floats) -> tuple[Ints, Ints]:
    """Class of every row and column: a quarter octave each of a rank-one fit r_i c_j of |w_ij| in steps."""
    size = np.abs(targets)
    row, col = np.ones(len(rows), dtype=np.float32), np.ones(len(cols), dtype=np.float32)
    for _ in range(3):
        col = (size @ (1 / (rows * row))) / len(rows) / cols + _FIT
        row = ((1 / (cols * col)) @ size) / len(cols) / rows + _FIT
    quarters = [np.rint(CLASSES * np.log2(values)) for values in (row, col)]
    limit = 4 * rans.CLASSES
    row_class, col_class = (np.clip(values, -limit, limit).astype(np.int16) for values in quarters)
    return row_class + np.int16(MIDDLE), col_class
