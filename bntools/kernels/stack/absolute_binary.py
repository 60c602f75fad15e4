"""Iterative absolute-value decomposition: a matrix as signs times low-rank sizes, again of what is left, and so on.

BitStack, arXiv 2410.23918, section 3.1: S_i = sign(R_i) with sign(0) = 1, |R_i| by its k largest singular values, and
R_(i+1) = R_i - S_i o (u_i v_i). Sizes of weights lie near a matrix of rank one, their signs near none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.kernels.counter_random import normals
from bntools.kernels.entropy.unbounded_levels import Floats, _jit

_OVER = 16  # directions drawn beyond the rank
_ROUNDS = 4  # of power iteration
_EXACT = 256  # sides up to which the whole decomposition costs less
_LARGEST = 65504.0  # float16
_STREAM = 7000  # of the test matrices; the level is added


class Level(NamedTuple):
    """One level: positive [out, in] bool, left u [out, k], right v [k, in] float16."""

    positive: Tensor
    left: Tensor
    right: Tensor


def factors(a: Tensor, rank: int, seed: int = 0, stream: int = _STREAM) -> tuple[Tensor, Tensor]:
    """u [m, k] and v [k, n] with u v the best fit of rank k to A [m, n] float32, and u^T u = v v^T diagonal.

    Subspace iteration on rank + 16 random directions (Halko, Martinsson and Tropp 2011, algorithm 4.4) where both
    sides are over 256; there the error is at most 1 % above the best. k is at most min(m, n).
    """
    k = min(rank, *a.shape)
    if min(a.shape) <= _EXACT or k + _OVER >= min(a.shape):
        left, sigma, right = torch.linalg.svd(a, full_matrices=False)
    else:
        draws = normals(seed, stream, 0, a.shape[1] * (k + _OVER))
        basis = torch.linalg.qr(a @ torch.from_numpy(draws).view(a.shape[1], -1))[0]
        for _ in range(_ROUNDS):
            basis = torch.linalg.qr(a @ torch.linalg.qr(a.T @ basis)[0])[0]
        inner, sigma, right = torch.linalg.svd(basis.T @ a, full_matrices=False)
        left = basis @ inner
    root = sigma[:k].sqrt()
    return left[:, :k] * root, root[:, None] * right[:k]


def decompose(w: Tensor, rank: int, levels: int, seed: int = 0, exact: bool = False) -> Iterator[Level]:
    """The levels of W [out, in] float32, the coarsest first.

    exact: what is left is taken of the factors before float16 rounds them, as in the paper; by default after it, so
    that later levels make up for the rounding.
    """
    rest = w.clone()
    for level in range(levels):
        positive = rest >= 0
        u, v = factors(rest.abs(), rank, seed, _STREAM + level)
        left, right = (part.clamp(-_LARGEST, _LARGEST).half() for part in (u, v))
        size = u @ v if exact else left.float() @ right.float()
        rest -= torch.where(positive, size, -size)
        yield Level(positive, left, right)


def add(values: Floats, bits: NDArray[np.uint8], left: Floats, right: Floats) -> None:
    """Add S o (u v) to values [out, in] in place, every product added in the order of the ranks.

    bits [out, ceil(in / 8)] uint8, packed as by `kernels.planes.pack`, 1 for +. left u [out, k], right v [k, in].
    """
    _add(values, bits, left, right, np.empty(values.shape[1], np.float32))


@_jit
def _add(values, bits, left, right, size):  # pragma: no cover - compiled
    cols = values.shape[1]
    for row in range(values.shape[0]):
        size[:] = np.float32(0)
        for rank in range(right.shape[0]):
            u, v = left[row, rank], right[rank]
            for j in range(cols):
                size[j] += u * v[j]
        line, packed = values[row], bits[row]
        for byte in range(cols >> 3):
            for bit in range(8):
                up = np.float32(2 * ((np.int32(packed[byte]) >> np.int32(bit)) & np.int32(1)) - 1)
                line[8 * byte + bit] += up * size[8 * byte + bit]
        for j in range(cols & ~7, cols):
            up = np.float32(2 * ((np.int32(packed[j >> 3]) >> np.int32(j & 7)) & np.int32(1)) - 1)
            line[j] += up * size[j]
