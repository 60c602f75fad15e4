"""The inner loops of the projections: compiled, without the interpreter's lock, one sequence of operations each.

Everywhere: `base` and `out` are slices [n] of flat vectors that start at parameter `start`, z [d] and g [n] float32.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from bntools.kernels.counter_random import below, word
from bntools.kernels.projections.hadamard import transform

Floats = NDArray[np.float32]
_S16, _S48, _S63, _ONE = (np.uint64(value) for value in (16, 48, 63, 1))


@numba.njit(cache=True, nogil=True)
def codes(key: np.uint64, start: int, dim: int, out: NDArray) -> None:
    """2 group + sign of each parameter: what `gather` reads. out: [n] uint16 or uint32."""
    for i in range(out.size):
        bits = word(key, start + i)
        out[i] = (below(bits, dim) << _ONE) | (bits & _ONE)


@numba.njit(cache=True, nogil=True)
def gather(signed: Floats, code: NDArray, base: Floats, out: Floats) -> None:
    """out = base + signed[code]; signed: [2 d], z and -z by turns."""
    for i in range(out.size):
        out[i] = base[i] + signed[code[i]]


@numba.njit(cache=True, nogil=True)
def scatter(g: Floats, code: NDArray, sums: NDArray[np.float64]) -> None:
    """sums[code] += g; sums: [2 d]."""
    for i in range(g.size):
        sums[code[i]] += g[i]


@numba.njit(cache=True, nogil=True)
def gather_made(signed: Floats, key: np.uint64, start: int, base: Floats, out: Floats) -> None:
    """`gather` with the codes made on the way."""
    dim = signed.size // 2
    for i in range(out.size):
        bits = word(key, start + i)
        out[i] = base[i] + signed[(below(bits, dim) << _ONE) | (bits & _ONE)]


@numba.njit(cache=True, nogil=True)
def scatter_made(g: Floats, key: np.uint64, start: int, sums: NDArray[np.float64]) -> None:
    """`scatter` with the codes made on the way."""
    dim = sums.size // 2
    for i in range(g.size):
        bits = word(key, start + i)
        sums[(below(bits, dim) << _ONE) | (bits & _ONE)] += g[i]


@numba.njit(inline="always")
def _signs(key: np.uint64, number: int | np.signedinteger, signs: Floats) -> None:
    """Signs number 64 n ... 64 n + 63 of a key, as floats."""
    bits = word(key, number)
    for t in range(64):
        signs[t] = np.float32(1) - np.float32(2) * np.float32((bits >> np.uint64(t)) & _ONE)


@numba.njit(cache=True, nogil=True)
def cycle(
    z: Floats, shift_key: np.uint64, sign_key: np.uint64, start: int, base: Floats, out: Floats
) -> None:
    """out_i = base_i +- z[(i + shift of block i // d) mod d], signs of their own for every parameter."""
    dim, n = z.size, out.size
    signs = np.empty(64, np.float32)
    i = 0
    while i < n:
        position = start + i
        block = position // dim
        _signs(sign_key, position >> 6, signs)
        shift = np.int64(below(word(shift_key, block), dim))
        source = (position - block * dim + shift) % dim
        skip = position & 63
        count = min(64 - skip, n - i, (block + 1) * dim - position, dim - source)
        for t in range(count):
            out[i + t] = base[i + t] + signs[skip + t] * z[source + t]
        i += count


@numba.njit(cache=True, nogil=True)
def uncycle(
    g: Floats, shift_key: np.uint64, sign_key: np.uint64, start: int, sums: NDArray[np.float64]
) -> None:
    """The adjoint of `cycle`, added to sums [d]."""
    dim, n = sums.size, g.size
    signs = np.empty(64, np.float32)
    i = 0
    while i < n:
        position = start + i
        block = position // dim
        _signs(sign_key, position >> 6, signs)
        shift = np.int64(below(word(shift_key, block), dim))
        target = (position - block * dim + shift) % dim
        skip = position & 63
        count = min(64 - skip, n - i, (block + 1) * dim - position, dim - target)
        for t in range(count):
            sums[target + t] += np.float64(signs[skip + t] * g[i + t])
        i += count


@numba.njit(inline="always")
def _chaos(key: np.uint64, first: int, n: int, table: NDArray[np.int32], sign, order, gauss) -> None:
    """The diagonals B and G and the permutation of one block, all from word first + j for place j."""
    for j in range(n):
        order[j] = j
    for j in range(n - 1, -1, -1):
        bits = word(key, first + j)
        sign[j] = np.float32(1) - np.float32(2) * np.float32(bits & _ONE)
        gauss[j] = np.float32(table[(bits >> _S16) & np.uint64(0xFFFF)])
        if j:
            k = np.int64(below(bits, j + 1))
            kept = order[j]
            order[j] = order[k]
            order[k] = kept


@numba.njit(cache=True, nogil=True)
def gauss_energy(key: np.uint64, first: int, n: int, table: NDArray[np.int32]) -> np.int64:
    """Sum of squares of the diagonal G of a block, in units of the table's: exact."""
    total = np.int64(0)
    for j in range(n):
        value = np.int64(table[(word(key, first + j) >> _S16) & np.uint64(0xFFFF)])
        total += value * value
    return total


@numba.njit(cache=True, nogil=True)
def fastfood(
    z: Floats, key: np.uint64, first_block: int, n: int, table: NDArray[np.int32], base: Floats, out: Floats
) -> None:
    """out = base + the rows of the blocks H G Pi H B z from `first_block` on; z [n] is padded with zeros."""
    sign, gauss = np.empty(n, np.float32), np.empty(n, np.float32)
    order = np.empty(n, np.int32)
    first, second = np.empty(n, np.float32), np.empty(n, np.float32)
    for start in range(0, out.size, n):
        _chaos(key, (first_block + start // n) * n, n, table, sign, order, gauss)
        for j in range(n):
            first[j] = sign[j] * z[j]
        transform(first)
        for j in range(n):
            second[j] = gauss[j] * first[order[j]]
        transform(second)
        for j in range(min(n, out.size - start)):
            out[start + j] = base[start + j] + second[j]


@numba.njit(cache=True, nogil=True)
def unfastfood(
    g: Floats, key: np.uint64, first_block: int, n: int, table: NDArray[np.int32], sums: NDArray[np.float64]
) -> None:
    """The adjoint of `fastfood`, added to sums [n]; g starts where a block does."""
    sign, gauss = np.empty(n, np.float32), np.empty(n, np.float32)
    order = np.empty(n, np.int32)
    first, second = np.empty(n, np.float32), np.empty(n, np.float32)
    for start in range(0, g.size, n):
        _chaos(key, (first_block + start // n) * n, n, table, sign, order, gauss)
        count = min(n, g.size - start)
        second[:count] = g[start : start + count]
        second[count:] = 0
        transform(second)
        for j in range(n):
            first[order[j]] = gauss[j] * second[j]
        transform(first)
        for j in range(n):
            sums[j] += np.float64(sign[j] * first[j])


@numba.njit(cache=True, nogil=True)
def truncated_energy(
    key: np.uint64,
    block: int,
    n: int,
    rows: int,
    dim: int,
    table: NDArray[np.int32],
    energy: NDArray[np.float64],
) -> None:
    """Add the squared norms of the first `dim` columns of the first `rows` rows of one block to energy."""
    unit, zero, column = np.zeros(n, np.float32), np.zeros(rows, np.float32), np.empty(rows, np.float32)
    for j in range(dim):
        unit[j] = 1
        fastfood(unit, key, block, n, table, zero, column)
        unit[j] = 0
        total = 0.0
        for i in range(rows):
            total += np.float64(column[i]) * np.float64(column[i])
        energy[j] += total


@numba.njit(cache=True, nogil=True)
def sparse_rows(
    key: np.uint64,
    threshold: np.uint64,
    start: int,
    rows: int,
    dim: int,
    ends: NDArray[np.int64],
    code: NDArray,
) -> int:
    """2 column + sign of the nonzeros of some rows, each entry nonzero with probability threshold / 2^31.

    ends: [rows], where each row's nonzeros end in code. With code of length 0 they are only counted.
    """
    filled = 0
    for row in range(rows):
        for column in range(dim):
            bits = word(key, (start + row) * dim + column)
            if (bits >> np.uint64(33)) < threshold:
                if code.size:
                    code[filled] = (np.uint64(column) << _ONE) | (bits & _ONE)
                filled += 1
        ends[row] = filled
    return filled


@numba.njit(cache=True, nogil=True)
def gather_rows(signed: Floats, ends: NDArray[np.int64], code: NDArray, base: Floats, out: Floats) -> None:
    """out_i = base_i + the sum of signed[code] over the nonzeros of row i."""
    begin = 0
    for i in range(out.size):
        total = np.float32(0)
        for k in range(begin, ends[i]):
            total += signed[code[k]]
        begin = ends[i]
        out[i] = base[i] + total


@numba.njit(cache=True, nogil=True)
def scatter_rows(g: Floats, ends: NDArray[np.int64], code: NDArray, sums: NDArray[np.float64]) -> None:
    """The adjoint of `gather_rows`, added to sums [2 d]."""
    begin = 0
    for i in range(g.size):
        for k in range(begin, ends[i]):
            sums[code[k]] += g[i]
        begin = ends[i]


@numba.njit(cache=True, nogil=True)
def normal_columns(
    key: np.uint64, start: int, dim: int, table: NDArray[np.int32], out: Floats, energy: NDArray[np.int64]
) -> None:
    """Rows start ... of a Gaussian matrix into out [d, n], transposed; squares of the columns into energy [d]."""
    for j in range(dim):
        for i in range(out.shape[1]):
            value = table[word(key, (start + i) * dim + j) >> _S48]
            out[j, i] = np.float32(value)
            energy[j] += np.int64(value) * np.int64(value)


@numba.njit(cache=True, nogil=True)
def combine(z: Floats, columns: Floats, base: Floats, out: Floats) -> None:
    """out = base + the sum of z_j columns[j], j upwards, on pieces that stay in cache. columns: [d, n]."""
    sums = np.empty(4096, np.float32)
    for a in range(0, out.size, 4096):
        count = min(4096, out.size - a)
        sums[:] = 0
        for j in range(z.size):
            for i in range(count):
                sums[i] += z[j] * columns[j, a + i]
        for i in range(count):
            out[a + i] = base[a + i] + sums[i]


@numba.njit(cache=True, nogil=True)
def correlate(g: Floats, columns: Floats, sums: NDArray[np.float64]) -> None:
    """sums_j += columns[j] . g, in 16 partial sums an element apart that are added from the first to the last."""
    n = g.size
    lanes = np.empty(16)
    for j in range(sums.size):
        lanes[:] = 0
        for i in range(0, n - 15, 16):
            for t in range(16):
                lanes[t] += np.float64(columns[j, i + t] * g[i + t])
        for i in range(n - n % 16, n):
            lanes[i % 16] += np.float64(columns[j, i] * g[i])
        for t in range(16):
            sums[j] += lanes[t]


@numba.njit(cache=True, nogil=True)
def chaos(
    key: np.uint64,
    first: int,
    table: NDArray[np.int32],
    sign: NDArray[np.int8],
    order: NDArray[np.int32],
    gauss: Floats,
) -> None:
    """The diagonals and the permutation of one block, stored; order comes in as 0 ... n - 1."""
    for j in range(order.size - 1, -1, -1):
        bits = word(key, first + j)
        sign[j] = 1 - 2 * np.int8(bits & _ONE)
        gauss[j] = np.float32(table[(bits >> _S16) & np.uint64(0xFFFF)])
        if j:
            k = np.int64(below(bits, j + 1))
            kept = order[j]
            order[j] = order[k]
            order[k] = kept
